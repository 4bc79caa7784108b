"""Whole members in a simulated world: real lines, real storage, real requests; all fails.

`tests/nodesim/` (its map: nodesim.h) runs a cluster of nodes in one thread, over disks in
memory and connections that delay, split and break. By hand, from `tests/`:

    python3 test_node_simulator.py nodesim.out      builds it without sanitizers
    ./nodesim.out --seeds 1-100000
    ./nodesim.out --for 3600 --seeds 1000000-9000000
    ./nodesim.out --seed 77 --trace
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import ROOT, build, run

SEEDS = 300
SLOW_SEEDS = 20_000
PROCESSES = 2
SOURCES = [
    str(path.relative_to(ROOT))
    for pattern in (
        "tests/nodesim/*.c",
        "csrc/node/*.c",
        "csrc/raft/*.c",
        "csrc/wire/*.c",
        "csrc/storage/*.c",
        "csrc/base/*.c",
    )
    for path in sorted(ROOT.glob(pattern))
] + [f"csrc/server/{name}.c" for name in ("disk_jobs", "backend_store", "writing", "reader")]
# Small limits are met often: queues fill, blocks and segments end, snapshots have many pieces.
LIMITS = {
    "FILL_STEP_BYTES": 8192,
    "COMPACT_KEEP_ENTRIES": 20,
    "SNAPSHOT_CHUNK_BYTES": 1024,
    "ENTRY_CACHE_BYTES_MAX": 16384,
    "ENTRY_BLOCK_BYTES": 4096,
    "PEER_OUT_BYTES_MAX": 16384,
    "APPEND_BYTES_MAX": 8192,
    "PROPOSE_BYTES_MAX": 4096,
    "CLIENT_OUT_BYTES_MAX": 4096,
    "IN_FLIGHT_PER_CLIENT_MAX": 32,
    "APPLY_BATCH_ITEMS_MAX": 64,
    "PENDING_COMMANDS_MAX": 512,
}


def build_simulator(sanitize: bool = True) -> Path:
    return build(
        "nodesim" if sanitize else "nodesim-fast",
        SOURCES,
        sanitize=sanitize,
        libs=["-ljansson"],
        flags=[*(f"-D{name}={value}u" for name, value in LIMITS.items()), "-O1"],
    )


@pytest.fixture(scope="module")
def simulator() -> Path:
    return build_simulator()


def run_seeds(simulator: Path, seeds: int, timeout: float) -> None:
    share = seeds // PROCESSES
    ranges = [f"{i * share + 1}-{(i + 1) * share}" for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        said = list(pool.map(lambda r: run(simulator, "--seeds", r, timeout=timeout), ranges))
    for text in said:
        assert re.search(rf"^{share} seeds, 0 violations, ", text, re.M), text
        print(text, end="")


def test_simulated_members(simulator: Path) -> None:
    """Hundreds of small worlds in which everything goes wrong, and then must come right."""
    run_seeds(simulator, SEEDS, timeout=300)


@pytest.mark.slow
def test_many_simulated_members() -> None:
    """The same for as long as it takes (half an hour); `-m slow` runs it."""
    run_seeds(build_simulator(sanitize=False), SLOW_SEEDS, timeout=3600)


@pytest.mark.parametrize("seed", [7, 1000003])
def test_the_same_seed_tells_the_same_story(simulator: Path, seed: int) -> None:
    first, second = (
        subprocess.run(
            [str(simulator), "--seed", str(seed), "--trace"], capture_output=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    assert first.count(b"\n") > 100
    assert first.count(b"fingerprint") == 1


def test_a_shorter_run_is_a_beginning_of_the_longer_one(simulator: Path) -> None:
    """What `--until` leaves out comes after it, so a failure's beginning can be looked for."""
    whole, part = (
        subprocess.run(
            [str(simulator), "--seed", "7", "--trace", *until],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for until in ([], ["--until", "1500000"])
    )
    story, _, peace = part.partition(" peace\n")
    assert peace
    assert whole.startswith(story.rpartition("\n")[0])
    assert story.count("\n") > 20


if __name__ == "__main__":
    shutil.copy(build_simulator(sanitize=False), sys.argv[1])
