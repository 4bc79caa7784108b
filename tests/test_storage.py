"""The storage of a member: every fault of the system under it, every damage to its files.

The checks are in C, over a file system in memory that can lose what was not synced; this builds
them with sanitizers and runs them. The plain run takes samples; all of it, printing how many
points that were: `pytest -s -m slow tests/test_storage.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cbuild import build, run

STORAGE = [
    f"csrc/storage/{name}.c"
    for name in (
        "calls",
        "file",
        "journal",
        "journal_read",
        "lines",
        "metafile",
        "opening",
        "quarantine",
        "recovery",
        "segment",
        "snapfile",
        "store",
        "torn",
    )
]
WIRE = [f"csrc/wire/{name}.c" for name in ("entry", "line", "meta", "snapshot")]
BASE = [f"csrc/base/{name}.c" for name in ("buffer", "crc32c", "memory", "random", "status")]
MEMFS = ["tests/c/memfs.c", "tests/c/memfs_files.c"]
RIG = [*MEMFS, *(f"tests/c/{name}.c" for name in ("logmaker", "storerig", "storetest"))]


def program(name: str) -> Path:
    return build(name, [f"tests/c/{name}.c", *RIG, *STORAGE, *WIRE, *BASE])


def test_wire_of_storage() -> None:
    """Entries, meta records and snapshots come back; any changed byte of a line is refused."""
    assert "ok" in run(program("test_wire_storage"))


def test_storage() -> None:
    """C5, C8, D4, V3: the log, and term and vote."""
    assert "ok" in run(program("test_storage"))


def test_storage_more() -> None:
    """S1 to S4, D2: snapshots, a full disk, real files."""
    assert "ok" in run(program("test_storage_more"))


def test_storage_faults() -> None:
    """D1 to D3, D5, V2, V3, C5, C7: every third system call of a life fails, or is its last."""
    assert "ok" in run(program("test_storage_faults"), "3")


@pytest.mark.slow
def test_storage_faults_at_every_call() -> None:
    """The same at every call."""
    print(run(program("test_storage_faults"), "1", timeout=1800))


def test_storage_damage() -> None:
    """D4: ten thousand single corruptions, each detected or harmless."""
    assert "ok" in run(program("test_storage_damage"))


@pytest.mark.slow
def test_storage_damage_a_hundred_thousand_times() -> None:
    """The same, 100,000 of them."""
    print(run(program("test_storage_damage"), "100000", "7", timeout=3600))


def test_files_can_be_read_by_people(tmp_path: Path) -> None:
    """JSON Lines in all of them, with the filling as well."""
    data = tmp_path / "data"
    run(program("test_storage"), str(data))
    files = sorted(data.glob("*.jsonl"))
    assert {path.name.split("-")[0] for path in files} == {"meta.jsonl", "log", "snapshot"}
    for path in files:
        for line in path.read_text().splitlines():
            assert not line or len(json.loads(line)["crc32c"]) == 8, path
    newest = sorted(data.glob("log-*.jsonl"))[-1]
    assert newest.read_bytes().endswith(b"\n\n"), "filled ahead"
    jq = shutil.which("jq")
    if jq is not None:
        command = [jq, ".index", *map(str, sorted(data.glob("log-*.jsonl")))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.split() == [str(index) for index in range(1, 301)]
