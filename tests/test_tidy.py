"""The shape of the code: the rings of the design, and what no file may hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"

# An arrow only ever points down: which rooms each room may include, besides its own.
ARROWS = {
    "base": set(),
    "raft": {"base"},
    "wire": {"raft", "base"},
    "net": {"base"},
    "storage": {"wire", "base"},
    "node": {"raft", "wire", "base"},
    "server": {"node", "storage", "net", "wire", "raft", "base"},
    "python": {"server", "node", "wire", "base"},
}

# The outside's headers, and the rooms that may know them.
OUTSIDE = {
    "Python.h": {"python"},
    "structmember.h": {"python"},
    "uv.h": {"net", "server"},
    "jansson.h": {"wire"},
    "pthread.h": {"server"},
    "sys/socket.h": {"net"},
}

BANNED = ("sprintf", "vsprintf", "strcpy", "strcat", "gets", "alloca", "atoi", "strtok")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 120
LEFT_OVER = re.compile(r"\b(?:FIX" r"ME|X" r"XX|TO" r"DO)\b")


def sources(*patterns: str) -> list[Path]:
    return sorted(
        p
        for pattern in patterns
        for p in ROOT.glob(pattern)
        if "build" not in p.relative_to(ROOT).parts
    )


C_FILES = sources("csrc/**/*.c", "csrc/**/*.h")
OWN_FILES = [*C_FILES, *sources("raftpico/*.py*", "tests/*.py", "examples/**/*.py")]
ALL_FILES = [*OWN_FILES, *sources("tests/**/*.[ch]", "examples/**/*.[ch]")]


def without_comments(text: str) -> str:
    """C without comments and without what stands in strings; the lines stay where they are."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(
        r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
        blank,
        text,
        flags=re.DOTALL,
    )


def includes(path: Path) -> list[tuple[str, str]]:
    """("<" or '"', what is included) for each #include of a file."""
    return re.findall(
        r"^\s*#\s*include\s+([<\"])([^>\"]+)[>\"]", path.read_text(), re.MULTILINE
    )


def functions(text: str) -> list[tuple[str, int]]:
    """(first line, number of lines) of each function, which ends with a brace in column 0."""
    lines = text.splitlines()
    found = []
    for end, line in enumerate(lines):
        if line != "}":
            continue
        start = end - 1
        while not re.match(r"[A-Za-z_]", lines[start]) or re.match(r"\w+:$", lines[start]):
            start -= 1
        found.append((lines[start], end - start + 1))
    return found


def test_there_is_something_to_check() -> None:
    """The rules below find nothing in an empty list; this one fails there."""
    assert {p.relative_to(CSRC).parts[0] for p in C_FILES} == set(ARROWS)
    assert sum(len(functions(p.read_text())) for p in C_FILES) > 200
    assert sum(len(includes(p)) for p in C_FILES) > 200


def test_include_arrows_point_down() -> None:
    wrong = []
    for path in C_FILES:
        room = path.relative_to(CSRC).parts[0]
        for quote, name in includes(path):
            if quote == '"':
                target = name.split("/")[0]
                if target not in ARROWS or not (CSRC / name).is_file():
                    wrong.append(f"{path.relative_to(ROOT)}: {name}: no file of a room")
                elif target != room and target not in ARROWS[room]:
                    wrong.append(f"{path.relative_to(ROOT)}: {room} must not see {name}")
            elif name in OUTSIDE and room not in OUTSIDE[name]:
                wrong.append(f"{path.relative_to(ROOT)}: {room} must not see {name}")
    assert not wrong, "\n".join(wrong)


def test_of_the_node_python_sees_the_batch_alone() -> None:
    wrong = [
        f"{path.name}: {name}"
        for path in C_FILES
        if path.relative_to(CSRC).parts[0] == "python"
        for _, name in includes(path)
        if name.startswith("node/") and name != "node/batch.h"
    ]
    assert not wrong


def test_no_banned_call() -> None:
    banned = re.compile(rf"\b(?:{'|'.join(BANNED)})\s*\(")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in C_FILES
        for number, line in enumerate(without_comments(path.read_text()).splitlines(), 1)
        if banned.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_begin_by_saying_what_lives_in_them() -> None:
    for path in sources("csrc/**/*.[ch]", "tests/**/*.[ch]", "examples/**/*.[ch]"):
        assert path.read_text().startswith("/*"), path
    for path in sources("raftpico/*.py*", "tests/*.py", "examples/**/*.py"):
        if path.name != "py.typed":
            text = path.read_text().removeprefix("#!/usr/bin/env python3\n")
            assert text.startswith(('"""', '"""', "#")), path


def test_nothing_is_left_over() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in ALL_FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFT_OVER.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_and_no_function_is_too_long() -> None:
    for path in OWN_FILES:
        lines = len(path.read_text().splitlines())
        assert lines <= FILE_LINES_MAX, f"{path.relative_to(ROOT)}: {lines} lines"
    for path in C_FILES:
        for name, lines in functions(path.read_text()):
            assert lines <= FUNCTION_LINES_MAX, f"{path.relative_to(ROOT)}: {name}: {lines}"


def test_lines_are_at_most_96_columns() -> None:
    for path in C_FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 96, f"{path.relative_to(ROOT)}:{number}"
            assert line == line.rstrip(), (
                f"{path.relative_to(ROOT)}:{number}: spaces at the end"
            )
            assert "\t" not in line, f"{path.relative_to(ROOT)}:{number}: a tab"


def output_of(command: list[str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_the_module_exports_its_init_alone(tmp_path: Path) -> None:
    """One symbol: all else of the engine is invisible to other modules of the process."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    where = [sys.executable, "-c", "import raftpico._core as core; print(core.__file__)"]
    module = output_of(where, tmp_path).strip()
    symbols = {
        line.split()[-1]
        for line in output_of([nm, "-D", "--defined-only", module], tmp_path).splitlines()
    }
    assert symbols - {"_init", "_fini", "_edata", "_end", "__bss_start"} == {"PyInit__core"}
