"""The files of a data directory, read without disturbing the member that may be using it.

Nothing here writes, and nothing takes the directory's lock. The lines themselves are read by
the engine's own readers (`raftpico._core`), so that this takes for right what the engine takes
for right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raftpico import _core

META_NAME = "meta.jsonl"
QUARANTINE_NAME = "quarantine.jsonl"
LOCK_NAME = "lock"
TEMPORARY_SUFFIX = ".tmp"
LOG_PREFIX = "log-"
SNAPSHOT_PREFIX = "snapshot-"

NUMBER_MAX = 2**53 - 1
ENTRY_LINE_BYTES_MAX = _core.LINE_BYTES_MAX + 512 + 1
"""The longest line of an entry, with its LF."""

_NUMBERED = re.compile(r"(log-|snapshot-)(\d{20})\.jsonl")
_BLANK = re.compile(rb"\n*")


@dataclass(slots=True)
class Entry:
    """A log entry and where it stands."""

    index: int
    term: int
    time_ms: int
    kind: str
    """ "command", "noop" or "configuration"."""
    tag: tuple[int, int, int] | None
    """Of a command: the server that took it, that server's life, its number in it."""
    line: bytes
    """The whole line, with its LF."""
    body: tuple[int, int]
    """Where in the line the input or the configuration stands."""
    crc: int
    """The line's checksum: the chain's value at this entry."""
    file: str
    number: int
    """Of the line in its file, from 1; blank lines count."""
    offset: int

    @property
    def text(self) -> str:
        """The input or the configuration, as JSON text; "" for a noop."""
        return self.line[self.body[0] : self.body[1]].decode(errors="replace")

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"{self.file} line {self.number} (offset {self.offset})"


class Line(NamedTuple):
    """A line of a file; `data` has no LF at its end where the file ends first."""

    data: bytes
    number: int
    offset: int

    @property
    def whole(self) -> bool:
        """Whether it ends with its LF and is not too long for an entry."""
        return self.data.endswith(b"\n") and len(self.data) <= ENTRY_LINE_BYTES_MAX


@dataclass(frozen=True)
class Numbered:
    """A file that is named by an index."""

    index: int
    path: Path


def numbered(directory: Path, prefix: str) -> list[Numbered]:
    """The segments (`LOG_PREFIX`) or snapshots (`SNAPSHOT_PREFIX`), lowest index first."""
    found = []
    for path in directory.iterdir():
        match = _NUMBERED.fullmatch(path.name)
        if match and match[1] == prefix and 0 < int(match[2]) <= NUMBER_MAX:
            found.append(Numbered(int(match[2]), path))
    return sorted(found, key=lambda file: file.index)


def lines_of(data: bytes, start: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines from `start` on; runs of LF are filling and are passed over."""
    at = start
    while True:
        blank = _BLANK.match(data, at)
        assert blank is not None  # it matches nothing at all as well
        number += blank.end() - at
        at = blank.end()
        if at == len(data):
            return
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end + 1
        number += 1
        yield Line(data[at:end], number, at)
        at = end


def read_entry(line: Line, file: str, seed: int | None) -> Entry | None:
    """The entry of a line, None where it is none.

    Args:
        line: the line.
        file: the name of its file.
        seed: the checksum of the entry before, which the seal must go on from; None: the seal
            is not checked.
    """
    if not line.whole:
        return None
    read = _core.read_entry(line.data, seed)
    if read is None:
        return None
    index, term, time_ms, kind, tag, start, end, crc = read
    return Entry(
        index,
        term,
        time_ms,
        kind,
        tag,
        line.data,
        (start, end),
        crc,
        file,
        line.number,
        line.offset,
    )


@dataclass(frozen=True)
class Broken:
    """A line that is not the entry that must stand there."""

    file: str
    number: int
    offset: int
    why: str
    line: bytes

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"{self.file} line {self.number} (offset {self.offset})"


def why_broken(line: Line, expected: int | None, seed: int | None) -> str:
    """In words, what is wrong with a line that is not entry `expected` after `seed`."""
    if not line.data.endswith(b"\n"):
        return "the file ends within this line"
    if len(line.data) > ENTRY_LINE_BYTES_MAX:
        return "it is longer than any entry"
    if b"\0" in line.data:
        return "it holds NUL bytes"
    entry = read_entry(line, "", None)
    if entry is None:
        return "it has not the form of an entry"
    if expected is not None and entry.index != expected:
        return f"it is entry {entry.index} where entry {expected} must stand"
    if seed is not None and read_entry(line, "", seed) is None:
        return f"its checksum is wrong, or does not go on from {seed:08x}"
    return "its term goes back"


def walk(directory: Path, first: int = 1) -> Iterator[Entry | Broken]:
    """All lines of the log as they stand in the files, those behind a snapshot as well.

    The chain of checksums is followed from the first line on; what does not fit is a `Broken`,
    and the walk goes on behind it. For a person who looks: what a member would take for its log
    is `inspect`'s to say.

    Args:
        directory: the data directory.
        first: leave out segments that end before this index.
    """
    segments = numbered(directory, LOG_PREFIX)
    covered = [s for s in segments[1:] if s.index <= first]
    segments = [s for s in segments if not covered or s.index >= covered[-1].index]
    seed: int | None = None
    expected: int | None = None
    term = 0
    for segment in segments:
        if expected is None and segment.index == 1:
            seed = 0
        expected = segment.index if expected is None else expected
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:  # a snapshot has just replaced it
            seed = expected = None
            continue
        for line in lines_of(data):
            entry = read_entry(line, segment.path.name, seed)
            if entry is None or entry.index != expected or entry.term < term:
                name = segment.path.name
                why = why_broken(line, expected, seed)
                yield Broken(name, line.number, line.offset, why, line.data)
                entry = read_entry(line, name, None)
                if entry is None:
                    expected, seed = expected + 1, None
                    continue
            else:
                yield entry
            expected, seed, term = entry.index + 1, entry.crc, entry.term


def owner_of(directory: Path) -> int | None:
    """The process that uses the directory: its id, 0 where that is not known; None: nobody.

    The lock is looked up, never taken: not even for a moment is a member kept from it.
    """
    try:
        status = (directory / LOCK_NAME).stat()
        said = (directory / LOCK_NAME).read_text(errors="replace").strip()
    except OSError:
        return None
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return _if_alive(said)
    for lock in locks.splitlines():
        words = lock.split()
        if "FLOCK" in words and words[-3].endswith(f":{status.st_ino}"):
            return int(said) if said.isdigit() else 0
    return None


def _if_alive(said: str) -> int | None:
    """Where the system does not tell who holds a lock: the process that took it last."""
    if not said.isdigit():
        return None
    try:
        alive = Path(f"/proc/{said}").exists() or not Path("/proc").exists()
    except OSError:
        alive = True
    return int(said) if alive else None
