"""The fuzz targets of fuzzing.py, briefly: the seeds, and a few seconds of what grows of them.

Longer: python tests/fuzzing.py TARGET SECONDS, by hand or by `pytest -m slow`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import TARGETS, build_target, corpus, executions, missing, run_target

SECONDS = 2
SECONDS_SLOW = 600


def fuzz(name: str, seconds: int, directory: Path) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    done = run_target(build_target(name), name, seconds, directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert executions(done.stderr) > len(list(corpus(name).iterdir()))


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_briefly(name: str, tmp_path: Path) -> None:
    fuzz(name, SECONDS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_longer(name: str, tmp_path: Path) -> None:
    fuzz(name, SECONDS_SLOW, tmp_path)
