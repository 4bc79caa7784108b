"""The core: rule by rule, against hostile messages, and in a simulated cluster, all in C.

More seeds: `RAFTPICO_SEEDS=20000 pytest tests/test_raft_core.py -k simulated` (as CI does), or
as long as one likes: `python3 tests/test_raft_core.py --for SECONDS`, which takes what
sim/main.c lists. A failing seed says how it is repeated.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import ROOT, build, run

SEEDS = int(os.environ.get("RAFTPICO_SEEDS", "2400"))
PROCESSES = 2
CORE = [
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("csrc/raft/*.c"))),
    "csrc/base/memory.c",
    "csrc/base/random.c",
]
SIMULATOR = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/sim/*.c"))]


UNITS = sorted(path.stem for path in ROOT.glob("tests/c/test_raft*.c"))


@pytest.mark.parametrize("name", UNITS)
def test_c(name: str) -> None:
    said = run(build(name, [f"tests/c/{name}.c", "tests/c/raftrig.c", *CORE]))
    assert said.endswith("ok\n")


@pytest.fixture(scope="module")
def simulator() -> Path:
    """With sanitizers while the seeds are few; many of them go faster without."""
    return build("sim", [*SIMULATOR, *CORE], sanitize=SEEDS <= 5000)


def test_simulated_clusters(simulator: Path) -> None:
    """Thousands of small worlds in which everything goes wrong, and then must come right."""
    share = SEEDS // PROCESSES
    ranges = [f"{i * share + 1}-{(i + 1) * share}" for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        said = list(pool.map(lambda r: run(simulator, "--seeds", r, timeout=7200), ranges))
    for text in said:
        assert re.search(rf"^{share} seeds, 0 violations, ", text, re.M), text
        print(text, end="")


@pytest.mark.parametrize("seed", [5, 77, 1000003])
def test_the_same_seed_tells_the_same_story(simulator: Path, seed: int) -> None:
    first, second = (
        subprocess.run(
            [str(simulator), "--seed", str(seed), "--trace"], capture_output=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    assert first.count(b"\n") > 100


BROKEN = {  # what is broken -> the file, its line, and what stands there instead
    "a violation": (
        "replication.c",
        "match[i] = raft->durable_index;",
        "match[i] = raft->log.last_index;",
    ),
    "an assert": (
        "election.c",
        "ask_for_votes(raft, false, transfer);",
        "ask_for_votes(raft, false, transfer); count_vote(raft, raft->id);",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_failing_seed_is_shortened_and_repeated(broken: str, tmp_path: Path) -> None:
    """It says the shortest chaos, and with that the same seed fails again."""
    name, before, after = BROKEN[broken]
    text = (ROOT / "csrc" / "raft" / name).read_text()
    assert text.count(before) == 1
    changed = tmp_path / name
    changed.write_text(text.replace(before, after))
    core = [str(changed) if source.endswith(f"/{name}") else source for source in CORE]
    program = build("sim_broken", [*SIMULATOR, *core], sanitize=False)
    for seed in range(1, 51):
        failed = subprocess.run(
            [str(program), "--seed", str(seed)], capture_output=True, text=True, check=False
        )
        if failed.returncode != 0:
            break
    again = re.search(rf"again: sim (--seed {seed} --chaos \d+) --trace$", failed.stdout, re.M)
    assert again is not None, failed.stdout
    repeated = subprocess.run(
        [str(program), *again[1].split()], capture_output=True, text=True, check=False
    )
    assert repeated.returncode != 0
    assert re.search(r"VIOLATION|ASSERT in seed \d+$", repeated.stdout, re.M), repeated.stdout


def test_for_as_long_as_it_is_given(simulator: Path) -> None:
    said = run(simulator, "--for", "1", "--from", "5000000")
    assert re.search(r"^seeds 5000000 to \d+$", said, re.M), said
    assert re.search(r"^\d+ seeds, 0 violations, ", said, re.M), said


if __name__ == "__main__":
    program = build("sim", [*SIMULATOR, *CORE], sanitize=False, flags=["-O2"])
    sys.exit(subprocess.run([str(program), *sys.argv[1:]], check=False).returncode)
