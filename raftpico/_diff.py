"""Two members' logs side by side: the first entry at which they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftpico._datadir import Broken, Entry, walk
from raftpico._inspect import Report, inspect
from raftpico._words import describe, row


@dataclass
class Difference:
    """What a comparison has found."""

    outcome: str
    """ "agree", "differ", "different clusters" or "nothing in common"."""
    words: list[str]
    """The same for people, and what else there is to say."""
    sides: list[str] = field(default_factory=list)
    """What each directory holds, for people."""
    first_difference: int | None = None
    """Where they "differ": at this entry, or (of a snapshot's chain) at or before it."""
    compared: tuple[int, int] | None = None
    """The first and the last entry that both hold and that are the same."""

    broken: list[str] = field(default_factory=list)
    """Where the reading of a directory ended before its log did."""

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "outcome": self.outcome,
            "first_difference": self.first_difference,
            "compared": self.compared,
            "broken": self.broken,
        }


class Side:
    """One of the two, read entry by entry."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.report: Report = inspect(directory)
        self.broken: Broken | None = None
        self.first: int | None = None
        self.last = self.report.snapshot_index
        self.chain: dict[int, int] = {}
        """The chain's checksum at the entries that were asked for, as far as it was read."""
        self.points: set[int] = set()
        """The entries whose checksum shall be kept."""
        if self.report.snapshot is not None:
            self.chain[self.report.snapshot_index] = self.report.snapshot["chain"]
        self._items: Iterator[Entry | Broken] = walk(directory)

    def next(self) -> Entry | None:
        """The next entry; None at the log's end, or where it cannot be read further."""
        item = None if self.broken else next(self._items, None)
        if isinstance(item, Broken):
            self.broken = item
            return None
        if item is not None:
            self.first = self.first or item.index
            self.last = item.index
            if item.index in self.points:
                self.chain.setdefault(item.index, item.crc)
        return item

    def describe(self) -> str:
        """What it holds."""
        meta = self.report.meta
        index = self.report.snapshot_index
        parts = [f"{self.name}  {self.directory}: {describe(meta) if meta else 'unreadable'}"]
        parts += [f"   snapshot of entry {index}"] if index else []
        parts += [f"   {name}: entries {a} to {b}" for name, a, b in self.report.segments]
        return "\n".join(parts)


def compare(a_path: Path, b_path: Path) -> Difference:
    """Compare two data directories; both may be in use.

    Raises:
        OSError: one cannot be read.
    """
    a, b = Side("A", a_path), Side("B", b_path)
    found = _compare(a, b)
    found.sides = [a.describe(), b.describe()]
    found.broken = [f"{s.name} {s.broken.place}" for s in (a, b) if s.broken is not None]
    return found


def _compare(a: Side, b: Side) -> Difference:
    if a.report.cluster and b.report.cluster and a.report.cluster != b.report.cluster:
        words = ["they belong to different clusters: nothing in them has to agree"]
        return Difference("different clusters", words)
    a.points = b.points = {a.report.snapshot_index, b.report.snapshot_index}
    compared: tuple[int, int] | None = None
    ours, theirs = a.next(), b.next()
    while ours is not None and theirs is not None:
        if ours.index < theirs.index:
            ours = a.next()
        elif theirs.index < ours.index:
            theirs = b.next()
        elif ours.line != theirs.line:
            return _differ(a, b, ours, theirs, compared)
        else:
            compared = (compared[0] if compared else ours.index, ours.index)
            ours, theirs = a.next(), b.next()
    for side in (a, b):
        while side.next() is not None:
            pass
    return _differ_in_snapshot(a, b, compared) or _agree(a, b, compared)


def _differ(
    a: Side, b: Side, ours: Entry, theirs: Entry, compared: tuple[int, int] | None
) -> Difference:
    if ours.term != theirs.term:
        older = a if ours.term < theirs.term else b
        why = (
            f"{older.name}'s is of the earlier term: a tail that was never committed, and is "
            "replaced when that member next hears from its leader"
        )
    else:
        why = (
            "the same index and term with two contents: these are not two members of one "
            "cluster, or one of the directories was edited, or copied from another history"
        )
    words = [
        f"they differ first at entry {ours.index}:",
        f"A  {ours.place}: {row(ours, None).strip()}",
        f"B  {theirs.place}: {row(theirs, None).strip()}",
        why,
    ]
    return Difference("differ", words, first_difference=ours.index, compared=compared)


def _differ_in_snapshot(
    a: Side, b: Side, compared: tuple[int, int] | None
) -> Difference | None:
    """A snapshot's chain against what the other side has there."""
    for index in sorted(a.chain.keys() & b.chain.keys()):
        if a.chain[index] != b.chain[index]:
            words = [
                f"they differ at or before entry {index}: the snapshot there stands behind "
                f"another chain (A {a.chain[index]:08x}, B {b.chain[index]:08x})"
            ]
            return Difference("differ", words, first_difference=index, compared=compared)
    return None


def _agree(a: Side, b: Side, compared: tuple[int, int] | None) -> Difference:
    points = sorted(a.chain.keys() & b.chain.keys())
    words = []
    if compared is not None:
        words.append(f"they agree on entries {compared[0]} to {compared[1]}")
    elif points:
        words.append(f"they agree on the chain at entry {points[-1]}, a snapshot's")
    for side in (a, b):
        if compared is not None and side.last > compared[1]:
            words.append(f"{side.name} goes on to entry {side.last}")
        if side.broken is not None:
            words.append(
                f"{side.name} was read up to {side.broken.place} only: {side.broken.why}"
            )
    if _same_state(a, b) is False:
        words.append(
            f"but their snapshots of entry {a.report.snapshot_index} are not the same bytes: "
            "is the machine deterministic? (The order of keys counts here.)"
        )
    if compared is None and not points:
        words.append("there is no entry that both hold, so there is nothing to compare")
        return Difference("nothing in common", words)
    return Difference("agree", words, compared=compared)


def _same_state(a: Side, b: Side) -> bool | None:
    """Whether two snapshots of one entry are the same bytes; None: they are not of one."""
    index = a.report.snapshot_index
    if index == 0 or index != b.report.snapshot_index:
        return None
    try:
        files = [(s.directory / s.report.snapshot_file).read_bytes() for s in (a, b)]
    except FileNotFoundError:
        return None
    return files[0] == files[1]
