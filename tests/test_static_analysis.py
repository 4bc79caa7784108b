"""What compilers can tell by thinking: clang-tidy and gcc's analyzer over the whole engine.

Two minutes of one processor, so `pytest -m slow tests/test_static_analysis.py` (.ci/run does
it). What is off in clang-tidy, and why, stands in csrc/.clang-tidy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import ROOT

CSRC = ROOT / "csrc"
FILES = sorted(CSRC.glob("*/*.c"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", f"-I{CSRC}", f"-I{sysconfig.get_path('include')}"]

# gcc 12 does not follow "no bytes, or a pointer to them" through our spans, and takes each for
# NULL; clang's analyzer, which does, looks after null pointers.
NULLS = ["-Wno-analyzer-null-dereference", "-Wno-analyzer-null-argument"]

pytestmark = pytest.mark.slow


def findings(commands: list[list[str]]) -> list[str]:
    """Each warning once, whatever the order in which the commands end."""

    def run(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
        if done.returncode != 0 and "warning:" not in done.stdout + done.stderr:
            return f"{command[-1]}: error: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = "\n".join(pool.map(run, commands))
    return sorted({line for line in said.splitlines() if re.search(r"(warning|error): ", line)})


def tidy(path: Path) -> list[str]:
    return ["clang-tidy", "--quiet", str(path), "--", *FLAGS]


def analyze(path: Path) -> list[str]:
    return ["gcc", *FLAGS, "-O1", "-fanalyzer", *NULLS, "-c", "-o", os.devnull, str(path)]


def test_clang_tidy_finds_nothing() -> None:
    if shutil.which("clang-tidy") is None:
        pytest.skip("clang-tidy is not installed")
    assert len(FILES) > 80
    found = [line for line in findings([tidy(path) for path in FILES]) if "csrc" in line]
    assert not found, "\n".join(found)


def test_gcc_analyzer_finds_nothing() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    found = findings([analyze(path) for path in FILES])
    assert not found, "\n".join(found)


def test_a_fault_is_found(tmp_path: Path) -> None:
    """Both tools work here: a leak and a use after free are seen."""
    program = tmp_path / "fault.c"
    program.write_text(
        "#include <stdlib.h>\n"
        "int fault(int n);\n"
        "int fault(int n) {\n"
        "    int *p = malloc(sizeof(*p));\n"
        "    if (p == NULL || n > 3) {\n        return 1;\n    }\n"
        "    free(p);\n"
        "    return *p;\n"
        "}\n"
    )
    for name, command in (("clang-tidy", tidy(program)), ("gcc", analyze(program))):
        if shutil.which(name) is not None:
            if name == "clang-tidy":
                command.insert(1, f"--config-file={CSRC / '.clang-tidy'}")
            said = "\n".join(findings([command]))
            assert re.search("leak", said), said
            assert re.search("after.*free", said), said
