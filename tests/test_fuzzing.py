"""The fuzz targets of fuzzing.py, briefly: the seeds, and some thousands of what grows of them,
the same ones each time, so that the result is that of the code and not of the dice.

Longer, and new ones: python tests/fuzzing.py TARGET SECONDS, by hand or by `pytest -m slow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzzing import TARGETS, build_target, corpus, executions, missing, run_target

SAME_RUNS = ("-seed=1", "-runs=20000")
SECONDS_MAX = 60
SECONDS_SLOW = 600


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    """Built side by side."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(TARGETS, pool.map(build_target, TARGETS), strict=True))


def fuzz(
    program: Path, name: str, seconds: int, directory: Path, options: Sequence[str] = ()
) -> None:
    done = run_target(program, name, seconds, directory, options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert executions(done.stderr) > len(list(corpus(name).iterdir()))


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_briefly(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    fuzz(programs[name], name, SECONDS_MAX, tmp_path, SAME_RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_longer(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    fuzz(programs[name], name, SECONDS_SLOW, tmp_path)
