"""`python -m raftpico.demo`: three members, the leader killed, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster import PATIENCE


def test_the_demo_succeeds_and_leaves_nothing(tmp_path: Path) -> None:
    """Exit code 0 means that all of it held; what it started and wrote is gone afterwards."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "raftpico.demo"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=180 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "leader" in done.stdout.lower()
    assert list(temporary.iterdir()) == []


def test_the_commands_explain_themselves(tmp_path: Path) -> None:
    for module in ("raftpico.demo", "raftpico.kvs"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout.lower()
