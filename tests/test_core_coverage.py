"""Every line of the core, and nearly every branch, is run by its own tests.

The unit tests, the scenarios and some hundred seeds of the simulator, with gcc's counters.
Lines that cannot be reached say so and why, `/* unreachable: reason */`; the branches of an
ASSERT do not count, for its other side is the end of the process.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cbuild import ROOT
from mutate import LIMITS, SCENARIOS, UNITS

SEEDS = 300
LINES_LEAST = 100.0
BRANCHES_LEAST = 95.0
CORE = sorted((ROOT / "csrc" / "raft").glob("*.c"))
BASE = [ROOT / "csrc" / "base" / name for name in ("memory.c", "random.c")]
UNREACHABLE = re.compile(r"/\* unreachable: \w.*\*/")


@dataclass
class Counts:
    """How often each line, and each way out of it, was taken."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    branches: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))


GCC = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O0", "-w"]
INCLUDES = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'c'}"]
GROUPS = {"plain": [], "shrunk": LIMITS}  # the limits that the core is compiled with


def programs(group: str) -> dict[str, tuple[list[Path], list[str]]]:
    """name -> sources around the core, arguments."""
    tests = ROOT / "tests"
    if group == "shrunk":
        arguments = ["--check", *map(str, SCENARIOS)]
        return {"scenario": (sorted(tests.glob("scenario/*.c")), arguments)}
    rig = tests / "c" / "raftrig.c"
    units = {name: ([tests / "c" / f"{name}.c", rig], list[str]()) for name in UNITS}
    return {"sim": (sorted(tests.glob("sim/*.c")), ["--seeds", f"1-{SEEDS}"]), **units}


def measure(group: str, folder: Path) -> list[Any]:
    """What gcov says of the core after all programs of a group, which share its objects."""
    core = folder / "core"
    core.mkdir(parents=True)
    command = [*GCC, *INCLUDES, *GROUPS[group]]
    subprocess.run([*command, "--coverage", "-c", *map(str, CORE)], cwd=core, check=True)
    objects = sorted(map(str, core.glob("*.o")))
    for name, (around, arguments) in programs(group).items():
        program = folder / name
        sources = map(str, [*around, *BASE])
        subprocess.run(
            [*command, *sources, *objects, "-lgcov", "-o", str(program)],
            cwd=folder,
            check=True,
        )
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    data = [path.name for path in core.glob("*.gcda")]
    assert len(data) == len(CORE)
    said = subprocess.run(
        ["gcov", "--json-format", "--branch-probabilities", "--stdout", *data],
        cwd=core,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [json.loads(line) for line in said.splitlines() if line.strip()]


def add(counts: dict[str, Counts], reports: list[Any]) -> None:
    for report in reports:
        for file in report["files"]:
            path = Path(file["file"])
            if path.parent != ROOT / "csrc" / "raft":
                continue
            of_file = counts[path.name]
            for line in file["lines"]:
                of_file.lines[line["line_number"]] += line["count"]
                for number, branch in enumerate(line["branches"]):
                    of_file.branches[line["line_number"], number] += branch["count"]


def asserts(text: str) -> set[int]:
    """The lines of every ASSERT, to its closing bracket."""
    lines = set()
    for match in re.finditer(r"ASSERT\([^;]*;", text):
        first = text.count("\n", 0, match.start()) + 1
        lines.update(range(first, first + match[0].count("\n") + 1))
    return lines


def share(hit: int, total: int) -> float:
    return 100.0 * hit / total if total else 100.0


@pytest.mark.skipif(shutil.which("gcov") is None, reason="gcov is not installed")
def test_coverage_of_the_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: dict[str, Counts] = defaultdict(Counts)
    with ThreadPoolExecutor(2) as pool:
        for reports in pool.map(lambda group: measure(group, tmp_path / group), GROUPS):
            add(counts, reports)
    table = ["file               lines               branches"]
    missing = []
    lines_hit = lines_all = branches_hit = branches_all = 0
    for name, of_file in sorted(counts.items()):
        source = (ROOT / "csrc" / "raft" / name).read_text()
        text = source.splitlines()
        excused = {n for n in of_file.lines if UNREACHABLE.search(text[n - 1])}
        skip = asserts(source) | excused
        lines = {n: c for n, c in of_file.lines.items() if n not in excused}
        branches = {at: c for at, c in of_file.branches.items() if at[0] not in skip}
        for n in excused:
            assert of_file.lines[n] == 0, f"{name}:{n} is reachable: {text[n - 1].strip()}"
        hit, ways = sum(c > 0 for c in lines.values()), sum(c > 0 for c in branches.values())
        table.append(
            f"{name:16} {hit:5}/{len(lines):<5} {share(hit, len(lines)):5.1f} %"
            f"   {ways:5}/{len(branches):<5} {share(ways, len(branches)):5.1f} %"
        )
        missing += [
            f"{name}:{n}: {text[n - 1].strip()}" for n, c in sorted(lines.items()) if not c
        ]
        missing += [
            f"{name}:{n}: way {way} of: {text[n - 1].strip()}"
            for (n, way), c in sorted(branches.items())
            if not c and lines.get(n)
        ]
        lines_hit, lines_all = lines_hit + hit, lines_all + len(lines)
        branches_hit, branches_all = branches_hit + ways, branches_all + len(branches)
    table.append(
        f"{'all':16} {lines_hit:5}/{lines_all:<5} {share(lines_hit, lines_all):5.1f} %"
        f"   {branches_hit:5}/{branches_all:<5} {share(branches_hit, branches_all):5.1f} %"
    )
    with capsys.disabled():
        print("\n" + "\n".join(table))
    report = "\n".join(["never:", *missing])
    assert share(lines_hit, lines_all) >= LINES_LEAST, report
    assert share(branches_hit, branches_all) >= BRANCHES_LEAST, report
