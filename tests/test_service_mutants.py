"""The tests of the service can fail: each mistake of mutations/service.txt is seen.

Slow: builds the engine once for each mistake (`pytest -m slow tests/test_service_mutants.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cbuild import ROOT

LIST = ROOT / "tests" / "mutations" / "service.txt"
HISTORIES = ["histories.py", "--histories", "10", "--operations", "3000", "--until-bad"]
SECONDS = 900.0

# These compile what they need by themselves; for all others the engine is built.
IN_C = ("test_wire.py", "test_engine.py")


@dataclass
class Mutation:
    """One mistake."""

    name: str
    what: str = ""
    file: str = ""
    by: str = ""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    @property
    def text(self) -> tuple[str, str]:
        return "\n".join(self.before) + "\n", "\n".join(self.after) + "\n"


def read_list(path: Path) -> list[Mutation]:
    mutations: list[Mutation] = []
    for line in path.read_text().splitlines():
        if line.startswith("["):
            mutations.append(Mutation(line.strip("[]")))
        elif line.startswith("-"):
            mutations[-1].before.append(line[1:])
        elif line.startswith("+"):
            mutations[-1].after.append(line[1:])
        elif line and not line.startswith("#"):
            word, rest = line.split(maxsplit=1)
            setattr(mutations[-1], word, rest)
    return mutations


MUTATIONS = read_list(LIST)


def test_every_mistake_has_its_place() -> None:
    """Plain: the list follows the code."""
    assert len(MUTATIONS) >= 9
    for mutation in MUTATIONS:
        before, after = mutation.text
        text = (ROOT / mutation.file).read_text()
        assert text.count(before) == 1, f"{mutation.name}: {mutation.file} has changed"
        assert mutation.what and mutation.by and before != after


def mutated(mutation: Mutation, directory: Path) -> Path:
    """A copy of the tree with the mistake in it."""
    tree = directory / "tree"
    for name in ("csrc", "raftpico", "tests", "examples"):
        leave = shutil.ignore_patterns("*.so", "__pycache__", "build")
        shutil.copytree(ROOT / name, tree / name, ignore=leave)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    before, after = mutation.text
    path = tree / mutation.file
    path.write_text(path.read_text().replace(before, after))
    return tree


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "CFLAGS": "-O0 -w"}


def build_engine(tree: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[each.name for each in MUTATIONS])
def test_mistake_is_seen(mutation: Mutation, tmp_path: Path) -> None:
    tree = mutated(mutation, tmp_path)
    if not mutation.by.startswith(IN_C):
        build_engine(tree)
    if mutation.by == "histories":
        command = [
            sys.executable,
            *HISTORIES,
            "--seed",
            "1",
            "--directory",
            str(tmp_path / "h"),
        ]
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += [mutation.by]
    done = subprocess.run(
        command,
        cwd=tree / "tests",
        env=environment(tree),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    print(done.stdout[-2000:])
    assert done.returncode == 1, f"nobody noticed:\n{done.stdout}{done.stderr}"
