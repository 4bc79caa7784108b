"""The fuzz targets of fuzzing.py, briefly: the seeds, and a few seconds of what grows of them.

Longer: python tests/fuzzing.py TARGET SECONDS, by hand or by `pytest -m slow`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzzing import TARGETS, build_target, corpus, executions, missing, run_target

SECONDS = 2
SECONDS_SLOW = 600


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    """Built side by side."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(TARGETS, pool.map(build_target, TARGETS), strict=True))


def fuzz(program: Path, name: str, seconds: int, directory: Path) -> None:
    done = run_target(program, name, seconds, directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert executions(done.stderr) > len(list(corpus(name).iterdir()))


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_briefly(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    fuzz(programs[name], name, SECONDS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_longer(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    fuzz(programs[name], name, SECONDS_SLOW, tmp_path)
