"""What a request costs, counted and held against the figures in costs.json.

Three whole nodes with their stores in one thread under callgrind (tests/c/costs.c) give the
instructions of leader and followers, the bytes and sends between them, the bytes of the log and
the memory: the same in every run. Three real members under strace give system calls.

A change that makes something dearer on purpose, or cheaper, records the figures anew:

    python tests/test_costs.py --write
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cbuild import ROOT, build
from cluster import PATIENCE, Connection, apply_request

sys.path.insert(0, str(ROOT / "examples"))
from benchmark.processes import counting
from benchmark.systems import JsonCluster, raftpico

FIGURES = Path(__file__).resolve().parent / "costs.json"
ROOMS = ("base", "raft", "wire", "node", "storage")
SOURCES = [
    "tests/c/costs.c",
    *(str(p.relative_to(ROOT)) for r in ROOMS for p in sorted(ROOT.glob(f"csrc/{r}/*.c"))),
    "csrc/server/disk_jobs.c",
    "csrc/server/reader.c",
    "csrc/server/writing.c",
    "csrc/server/backend_store.c",
]
LINE = re.compile(r"^ *([\d,]+) \([ \d.]+%\) .*costs\.c:(\w+) ")

# How much more than recorded is too much. Counts repeat exactly; instructions change with the
# compiler and the library, memory with the allocator, system calls with the moment.
MARGINS = {"instructions": 0.15, "counts": 0.02, "memory": 0.15, "system calls": 0.25}
OTHER_COMPILER = 0.40  # for instructions, where the figures come from another compiler
ALONE = 30
SYSTEM_CALL_ROUNDS = 5
WAITING = frozenset({"futex", "sched_yield", "restart_syscall"})
KINDS = {"put": ("Command", {"Put": ["k", 1]}), "query": ("Query", {"Get": "k"})}
KINDS["local_query"] = ("LocalQuery", {"Get": "k"})

Figures = dict[str, dict[str, float]]  # a group of MARGINS: what: figure


def compiler() -> str:
    command = [os.environ.get("CC", "cc"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


# --- counting ---------------------------------------------------------------------------------


def count_in_c(directory: Path) -> Figures:
    """Instructions a request, by scenario and role, and what costs.c prints."""
    program = build("costs", SOURCES, False, ["-ljansson"], ["-O2"])
    out = directory / "callgrind.out"
    data = directory / "data"
    data.mkdir()
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            str(program),
            str(data),
        ],
        capture_output=True,
        text=True,
        timeout=300 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run(
        ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    return figures_of([json.loads(line) for line in done.stdout.splitlines()], said.stdout)


def figures_of(scenarios: list[dict[str, object]], annotated: str) -> Figures:
    found: Figures = {"instructions": {}, "counts": {}, "memory": {}}
    lines = filter(None, map(LINE.match, annotated.splitlines()))
    inclusive = {line[2]: int(line[1].replace(",", "")) for line in lines}
    for scenario in scenarios:
        name, requests = str(scenario["scenario"]), float(str(scenario["requests"]))
        for role in ("leader", "follower", "leader_disk", "follower_disk"):
            spent = inclusive.get(f"{name}_{role}", 0) / requests
            if spent >= 100:
                found["instructions"][f"{name}_{role}"] = round(spent)
        for what in ("peer_bytes", "peer_sends", "log_bytes", "writes", "turns"):
            found["counts"][f"{name}_{what}"] = float(str(scenario[what]))
        if name == "put":
            found["memory"]["bytes_an_entry"] = float(str(scenario["memory_bytes"]))
    return found


def count_round(cluster: JsonCluster, connection: Connection, line: dict[str, object]) -> float:
    with counting(cluster.traces, cluster.ports) as counts:
        for _ in range(ALONE):
            connection.send(line)
            assert "result" in connection.receive()
    return sum(n for name, n in counts.calls.items() if name not in WAITING) / ALONE


def count_system_calls(directory: Path) -> Figures:
    """Of three members together, for a request that is alone, by kind.

    Waiting for a lock is not counted: how often a thread finds it taken is the machine's doing.
    Neither is what a slow machine has time for besides (heartbeats): the least of some rounds.
    """
    found: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(raftpico().running(directory, traced=True))
        connection = stack.enter_context(Connection(f"127.0.0.1:{cluster.leader()}"))
        for name, (kind, value) in KINDS.items():
            line = apply_request(value, kind)
            for _ in range(10):
                connection.send(line)
                connection.receive()
            found[name] = min(
                count_round(cluster, connection, line) for _ in range(SYSTEM_CALL_ROUNDS)
            )
    return {"system calls": found}


# --- comparing --------------------------------------------------------------------------------


def read_figures() -> tuple[Figures, str]:
    """(the figures, the compiler that they come from)"""
    told = json.loads(FIGURES.read_text())
    return told["figures"], told["compiler"]


def dearer(found: Figures, recorded: Figures, same_compiler: bool = True) -> list[str]:
    """A line for each figure that is more than recorded and its margin, or not there at all."""
    wrong = []
    for group, figures in found.items():
        margin = MARGINS[group]
        if group == "instructions" and not same_compiler:
            margin = OTHER_COMPILER
        if figures.keys() != recorded[group].keys():
            wrong.append(f"{group}: {sorted(figures.keys() ^ recorded[group].keys())}")
        for what in figures.keys() & recorded[group].keys():
            least = recorded[group][what]
            if figures[what] > least * (1 + margin) + 1e-4:
                wrong.append(
                    f"{group}: {what}: {figures[what]:g}, but {least:g} + {margin:.0%} at most"
                )
    return sorted(wrong)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def test_instructions_bytes_and_memory_a_request(tmp_path: Path) -> None:
    need("valgrind", "callgrind_annotate")
    recorded, by = read_figures()
    wrong = dearer(count_in_c(tmp_path), recorded, by == compiler())
    assert not wrong, "\n".join(wrong)


def test_system_calls_a_request(tmp_path: Path) -> None:
    need("strace")
    wrong = dearer(count_system_calls(tmp_path), read_figures()[0])
    assert not wrong, "\n".join(wrong)


def test_what_is_dearer_is_told() -> None:
    """Each figure by itself: half as much again is too much, a tenth of a percent is not."""
    recorded, _ = read_figures()
    assert not dearer(recorded, recorded)
    for group, figures in recorded.items():
        for what, figure in figures.items():
            for factor, red in ((1.5, figure > 0.001), (1.001, False)):
                changed = {group: {**figures, what: figure * factor}}
                assert bool(dearer(changed, recorded)) == red, (group, what)
        less = dict(list(figures.items())[1:])
        assert dearer({group: less}, recorded), "a figure that is missing"


def write() -> None:
    with tempfile.TemporaryDirectory() as directory:
        figures = count_in_c(Path(directory)) | count_system_calls(Path(directory))
    told = {"compiler": compiler(), "margins": MARGINS, "figures": figures}
    FIGURES.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{FIGURES} is written")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
