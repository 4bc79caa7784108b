"""The tests of the core can fail: what mutations/core.txt breaks on purpose is noticed.

All of it is slow (`pytest -m slow tests/test_mutations.py`, or `python3 tests/mutate.py`, which
writes the table mutations/core-results.md); a few mistakes are tried every time.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mutate_node
import pytest
from cbuild import ROOT
from mutate import RESULTS, SCENARIOS, read_list, run_mutations, verdict

# One of elections, one of commits, one of snapshots.
SAMPLE = {"vote-by-index", "figure-8", "stale-snapshot-truncates"}


def test_every_mistake_still_applies(tmp_path: Path) -> None:
    """Its lines stand in the core, each exactly once, and its scenarios exist."""
    mutations = read_list()
    assert len(mutations) >= 35
    assert len({mutation.id for mutation in mutations}) == len(mutations)
    for mutation in mutations:
        copy = tmp_path / mutation.id / "raft"
        shutil.copytree(ROOT / "csrc" / "raft", copy)
        before = (copy / mutation.file).read_text()
        mutation.apply(copy.parent)
        assert mutation.old and (copy / mutation.file).read_text() != before, mutation.id
        for name in mutation.first:
            assert any(path.name.startswith(name) for path in SCENARIOS), name


def test_every_mistake_in_node_still_applies() -> None:
    """mutate_node.py takes long and is run by hand: its list must not fall behind meanwhile."""
    mutations = mutate_node.read_list()
    assert len(mutations) >= 30
    for mutation in mutations:
        assert mutation.text() != (ROOT / "csrc" / mutation.file).read_text(), mutation.id


def test_a_few_mistakes_are_noticed() -> None:
    mutations = [mutation for mutation in read_list() if mutation.id in SAMPLE]
    assert len(mutations) == len(SAMPLE)
    results = run_mutations(mutations)
    assert not [name for name, found in results.items() if verdict(found) == "SURVIVED"]


@pytest.mark.slow
def test_every_mistake_is_noticed() -> None:
    results = run_mutations(read_list())
    assert not [name for name, found in results.items() if verdict(found) == "SURVIVED"]


def test_the_table_is_of_this_list() -> None:
    """The results that are kept are those of the mistakes that stand in the list."""
    rows = re.findall(r"^\| ([\w-]+) \| ", RESULTS.read_text(), re.M)[2:]
    assert rows == [mutation.id for mutation in read_list()]
    assert " 0 unnoticed" in RESULTS.read_text()
