"""The core: rule by rule, against hostile messages, and in a simulated cluster, all in C.

By hand, for longer: build(...) as below without sanitizers, then `sim --seeds 1-1000000`; a
failing seed is repeated with `sim --seed N --trace`.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cbuild import ROOT, build, run

SEEDS = 2400
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
    return build("sim", [*SIMULATOR, *CORE])


def test_simulated_clusters(simulator: Path) -> None:
    """Thousands of small worlds in which everything goes wrong, and then must come right."""
    share = SEEDS // PROCESSES
    ranges = [f"{i * share + 1}-{(i + 1) * share}" for i in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        said = list(pool.map(lambda r: run(simulator, "--seeds", r, timeout=600), ranges))
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
