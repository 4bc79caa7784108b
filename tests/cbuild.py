"""Builds the C tests, with sanitizers, into a folder that goes away with the run."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

STRICT = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
    f"-I{ROOT / 'csrc'}",
    f"-I{ROOT / 'tests' / 'c'}",
]
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
]
# What the sanitizers of a C test say ends it, and names the line.
ENVIRONMENT = {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "detect_leaks=1"}


@functools.cache
def folder() -> Path:
    """The run's folder for what is built."""
    path = Path(tempfile.mkdtemp(prefix="raftpico-c-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def build(
    name: str,
    sources: Sequence[str],
    sanitize: bool = True,
    libs: Sequence[str] = (),
    flags: Sequence[str] = (),
    compiler: str | None = None,
) -> Path:
    """Compile `sources` (relative to the project) with our warnings as errors into a program.

    `libs` are linker words such as "-ljansson"; `flags` come last and may overrule.
    """
    command = [
        *shlex.split(compiler or os.environ.get("CC", "cc")),
        *STRICT,
        "-O1",
        "-g",
        *(SANITIZE if sanitize else []),
        *flags,
        *(str(ROOT / source) for source in sources),
        "-o",
        str(folder() / name),
        *libs,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return folder() / name


def run(program: Path, *arguments: str, timeout: float = 120.0) -> str:
    """Run a C test; what it said is the failure's text, or what is returned."""
    done = subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    said = f"{program.name}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return done.stdout
