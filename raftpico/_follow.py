"""A log that is read while it is written: what `python -m raftpico.log follow` shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raftpico._datadir import LOG_PREFIX, Entry, lines_of, numbered, read_entry

READ_BYTES = 4 * 1024 * 1024
REMEMBERED_ENTRIES = 100_000
"""Whose checksums are kept, to notice that the log was cut and written anew."""


class Follower:
    """A place in a log that goes on being written.

    Args:
        directory: the data directory.
        first: begin with the file that holds this entry.
    """

    def __init__(self, directory: Path, first: int = 1) -> None:
        self.directory = directory
        self.path: Path | None = None
        self.offset = 0
        self.number = 0
        self.expected = 0
        self.first = first
        self.seed: int | None = None
        self.last = b""
        """The line before `offset`: when it has changed, the log was cut."""
        self.seen: dict[int, int] = {}
        """Index to checksum of what was given already."""

    def poll(self) -> Iterator[Entry | str]:
        """What has come since the last time; a str is a remark about the log itself."""
        try:
            if self.path is None or not self._is_as_left():
                yield from self._find_place()
            while self.path is not None:
                yield from self._read_on()
                if not self._go_to_next():
                    break
        except FileNotFoundError:
            self.path = None  # compacted or replaced by a snapshot: look again

    def _is_as_left(self) -> bool:
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(self.offset - len(self.last))
            return file.read(len(self.last)) == self.last

    def _find_place(self) -> Iterator[str]:
        """The first segment that may hold what was not given yet."""
        segments = numbered(self.directory, LOG_PREFIX)
        if not segments:
            return
        behind = [s for s in segments if s.index <= (self.expected or self.first)]
        segment = behind[-1] if behind else segments[0]
        if self.expected and segment.index > self.expected:
            yield (
                f"the log goes on at entry {segment.index}: a snapshot has replaced what was "
                "before"
            )
        self._begin(segment.path, segment.index)

    def _begin(self, path: Path, index: int) -> None:
        seed = self.seen.get(index - 1, 0 if index == 1 else None)
        self.path, self.offset, self.number, self.last = path, 0, 0, b""
        self.expected, self.seed = index, seed

    def _read_on(self) -> Iterator[Entry | str]:
        assert self.path is not None
        while True:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(READ_BYTES)
            before = self.offset
            for line in lines_of(data, 0, self.number):
                found = line._replace(offset=before + line.offset)
                entry = read_entry(found, self.path.name, self.seed)
                if entry is None or entry.index != self.expected:
                    return  # half written yet
                self.offset = found.offset + len(found.data)
                self.number, self.last = found.number, found.data
                self.expected, self.seed = entry.index + 1, entry.crc
                yield from self._give(entry)
            if self.offset == before or len(data) < READ_BYTES:
                return

    def _give(self, entry: Entry) -> Iterator[Entry | str]:
        known = self.seen.get(entry.index)
        if known == entry.crc:
            return
        if known is not None:
            yield f"the log was cut: entry {entry.index} and what followed are replaced"
            self.seen = {i: crc for i, crc in self.seen.items() if i < entry.index}
        self.seen[entry.index] = entry.crc
        if len(self.seen) > 2 * REMEMBERED_ENTRIES:
            low = entry.index - REMEMBERED_ENTRIES
            self.seen = {i: crc for i, crc in self.seen.items() if i > low}
        yield entry

    def _go_to_next(self) -> bool:
        name = f"{LOG_PREFIX}{self.expected:020}.jsonl"
        if self.path is None or self.path.name == name:
            return False
        if not (self.directory / name).exists():
            return False
        self._begin(self.directory / name, self.expected)
        return True
