"""The clients from outside that must work unchanged: found by a variable, else in the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def _version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def find_tool(variable: str, name: str, version: str = "") -> str | None:
    """The tool's path; `version` is how its version must begin ("0.4.2", "0.5")."""
    for path in (os.environ.get(variable), shutil.which(name)):
        if path and shutil.which(path) and _version(path).startswith(f"{name} {version}"):
            return path
    return None


def need_tool(variable: str, name: str, version: str = "") -> str:
    """The tool, or the test is skipped - or fails, where RAFTPICO_REQUIRE_JLOT=1."""
    path = find_tool(variable, name, version)
    if path is None:
        reason = f"{name} {version} is not in the PATH and {variable} does not name it"
        if os.environ.get("RAFTPICO_REQUIRE_JLOT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class Shell:
    """Runs command lines as a person types them, with some tools under their usual names."""

    def __init__(self, directory: Path, tools: dict[str, str]) -> None:
        bin_directory = directory / "bin"
        bin_directory.mkdir(parents=True)
        for name, path in tools.items():
            (bin_directory / name).symlink_to(Path(path).resolve())
        self.directory = directory
        self.environment = {
            **os.environ,
            "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, line: str, timeout: float = 120.0) -> str:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        assert not done.stderr, f"$ {line}\n{done.stderr}"
        return done.stdout
