"""What a member would make of its data directory when it opened it now.

This is the rule of the engine's own opening (csrc/storage/opening.c, recovery.c, torn.h), read
only: the same verdict, with a finding for each thing that is not as it should be.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftpico import _core
from raftpico._datadir import (
    LOG_PREFIX,
    META_NAME,
    QUARANTINE_NAME,
    SNAPSHOT_PREFIX,
    TEMPORARY_SUFFIX,
    Line,
    Numbered,
    lines_of,
    numbered,
    owner_of,
    read_entry,
    why_broken,
)

META_BYTES = 4096
META_LINE_BYTES_MAX = 640
BLOCK_BYTES = 4096
SECTOR_BYTES = 512
UNSYNCED_BYTES_MAX = 4 * 1024 * 1024
SNAPSHOT_LINE_BYTES_MAX = 1 << 30

LEAVE = (
    "remove the member from its cluster, delete the directory and add it anew: the leader "
    "brings it up"
)
META_ADVICE = f"term and vote cannot be trusted, so it must not vote again as itself; {LEAVE}"

_SEAL = b',"crc32c":"........"}'
_END = re.compile(rb'\{"end":\{"lines":(0|[1-9]\d*),"bytes":(0|[1-9]\d*)\}')
_SEAL_BYTES = 22


class Refused(Exception):
    """The member would not start; its finding is in the report already."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    severity: str
    """ "note": harmless. "torn": a write that a crash tore, never acknowledged. "damage": it
    may have been acknowledged. "refused": the member does not start with it."""
    file: str
    line: int
    """From 1; 0 where it is about the whole file."""
    offset: int
    what: str
    advice: str = ""

    @property
    def place(self) -> str:
        """Where a person finds it."""
        place = f" line {self.line} (offset {self.offset})" if self.line else ""
        return self.file + place


@dataclass
class Report:
    """What a directory holds."""

    path: Path
    owner: int | None = None
    """The process that uses it; 0: one that is not known; None: nobody."""
    meta: dict[str, Any] | None = None
    records: int = 0
    """Of meta.jsonl."""
    snapshot: dict[str, Any] | None = None
    snapshot_file: str = ""
    segments: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, first and last entry of each file whose entries count."""
    last_index: int = 0
    chain: int = 0
    """The chain's checksum at last_index."""
    last_term: int = 0
    configuration: dict[str, Any] | None = None
    quarantined: bool = False
    tail_cut: bool = False
    refused: bool = False
    leftovers: list[str] = field(default_factory=list)
    """Temporary files and files that a snapshot covers: they go at the next start."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def snapshot_index(self) -> int:
        """0: there is no snapshot."""
        return int(self.snapshot["index"]) if self.snapshot else 0

    @property
    def votes_alone(self) -> bool:
        """Whether no other member can make good what this one has lost."""
        if self.configuration is None or self.meta is None or self.meta["node"] == 0:
            return False
        others = [m for m in self.configuration["members"] if m["id"] != self.meta["node"]]
        return not any(m.get("voter") or m.get("before") for m in others)

    @property
    def cluster(self) -> str:
        """The cluster's id; "" where it belongs to none, or that cannot be read."""
        return str(self.meta["cluster"]) if self.meta else ""

    @property
    def sound(self) -> bool:
        """Whether a member opens it without cutting anything."""
        return not (self.refused or self.quarantined or self.tail_cut)

    def find(
        self, severity: str, file: str, line: int, offset: int, what: str, advice: str
    ) -> None:
        """Note a finding."""
        self.findings.append(Finding(severity, file, line, offset, what, advice))

    def refuse(self, file: str, line: int, offset: int, what: str, advice: str) -> None:
        """Note what keeps the member from starting. Raises Refused."""
        self.refused = True
        self.find("refused", file, line, offset, what, advice)
        raise Refused


def inspect(path: Path, tries: int = 10, pause: float = 0.1) -> Report:
    """Read a directory and say what a member would make of it.

    While a member uses it, files change between two looks: what is not sound is looked at
    again, up to `tries` times, `pause` seconds apart.

    Raises:
        OSError: the directory or a file cannot be read.
    """
    for left in range(tries - 1, -1, -1):
        try:
            report = _inspect_once(path)
        except FileNotFoundError:
            if left == 0 or not path.is_dir():
                raise
        else:
            if report.sound or report.owner is None or left == 0:
                return report
        time.sleep(pause)
    raise AssertionError("the last turn returns or raises")


def _inspect_once(path: Path) -> Report:
    report = Report(path, owner_of(path))
    names = {entry.name for entry in path.iterdir()}
    report.leftovers = sorted(n for n in names if n.endswith(TEMPORARY_SUFFIX))
    try:
        _load_meta(report)
        _load_mark(report, names)
        _load_snapshot(report)
        _Log(report).load()
        _compare_terms(report)
        _heed_missing_log(report)
    except Refused:
        pass
    return report


def _heed_missing_log(report: Report) -> None:
    """An identity without a log and a snapshot, as in csrc/server/recover.h."""
    assert report.meta is not None
    if report.meta["node"] == 0 or report.last_index > 0 or report.quarantined:
        return
    if report.meta["node"] == 1 and report.meta["voted_for"]:
        report.refuse(
            f"{LOG_PREFIX}*.jsonl",
            0,
            0,
            "the log is missing, and there is no snapshot",
            "put the files back; or, where other members have it all, delete the directory, "
            "and the leader brings this member back",
        )
    what = "it has an identity, but there is no log: the member starts as a new server"
    report.find("note", META_NAME, 0, 0, what, "")


def _compare_terms(report: Report) -> None:
    assert report.meta is not None
    if report.last_term > report.meta["term"]:
        report.refuse(
            META_NAME,
            0,
            0,
            f"it is of term {report.meta['term']}, but the log of term {report.last_term}: an "
            "older copy of this file? Votes may be forgotten",
            f"put the right file back, or {LEAVE}",
        )


# --- meta.jsonl, as in csrc/storage/metafile.c ------------------------------------------------


def _may_follow(last: dict[str, Any], after: dict[str, Any]) -> bool:
    if last["node"] != after["node"] or last["cluster"] != after["cluster"]:
        return True
    kept = last["voted_for"] in (0, after["voted_for"])
    return bool(after["term"] > last["term"] or (after["term"] == last["term"] and kept))


def _load_meta(report: Report) -> None:
    try:
        with (report.path / META_NAME).open("rb") as file:
            data = file.read(META_BYTES + 1)
    except FileNotFoundError:
        if numbered(report.path, LOG_PREFIX) or numbered(report.path, SNAPSHOT_PREFIX):
            report.refuse(
                META_NAME,
                0,
                0,
                "it is missing, but there is a log or a snapshot: term and vote are lost",
                f"put the file back, or {LEAVE}",
            )
        report.meta = {"cluster": "", "address": "", "node": 0, "incarnation": 0, "term": 0}
        report.meta |= {"voted_for": 0, "removed": False}
        return
    good_end = 0
    bad: Line | None = None
    for line in lines_of(data):
        meta = _core.read_meta(line.data)
        if meta is None or (report.meta is not None and not _may_follow(report.meta, meta)):
            bad = line
            break
        report.meta = meta
        report.records += 1
        good_end = line.offset + len(line.data)
    text = data[good_end:].rstrip(b"\n")
    sound = report.records > 0 and len(data) == META_BYTES and len(text) <= META_LINE_BYTES_MAX
    sound = sound and b"\0" not in text
    if not sound or _judge(text, good_end, len(data), b'{"cluster":"') == "damage":
        line_number = bad.number if bad else data.count(b"\n") + 1
        offset = bad.offset if bad else len(data)
        what = "it is damaged" if len(data) == META_BYTES else f"it is {len(data)} bytes long"
        report.refuse(META_NAME, line_number, offset, what, META_ADVICE)
    if text:
        report.find(
            "note",
            META_NAME,
            bad.number if bad else 0,
            good_end,
            "a torn record: its vote was never given; it is passed over",
            "",
        )


def _load_mark(report: Report, names: set[str]) -> None:
    if QUARANTINE_NAME not in names:
        return
    report.quarantined = True
    where = ""
    try:
        mark = json.loads((report.path / QUARANTINE_NAME).read_bytes())["quarantine"]
        where = f": {mark['file']} was damaged at line {mark['line']} (offset {mark['offset']})"
    except (ValueError, KeyError, TypeError):
        pass
    report.find(
        "damage",
        QUARANTINE_NAME,
        0,
        0,
        f"in quarantine since an earlier start{where}",
        "start the member: its leader brings it up to date and gives it back its vote",
    )


# --- snapshots, as in csrc/storage/snapfile.c and csrc/wire/snapshot.c ------------------------


def _snapshot_lines(path: Path) -> Iterator[Line]:
    offset = 0
    with path.open("rb") as file:
        pieces = iter(lambda: file.readline(SNAPSHOT_LINE_BYTES_MAX + 1), b"")
        for number, data in enumerate(pieces, 1):
            yield Line(data, number, offset)
            offset += len(data)


def check_snapshot(file: Numbered) -> tuple[dict[str, Any] | None, Line, str]:
    """The header of a whole snapshot, or None with the line that is wrong and why.

    The header gets "state_lines" and "bytes" besides what `_core.read_snapshot_header` gives.

    Raises:
        OSError: it cannot be read.
    """
    header: dict[str, Any] | None = None
    ended = False
    seed = 0
    line = Line(b"", 1, 0)
    for line in _snapshot_lines(file.path):
        if not line.data.endswith(b"\n") or ended:
            return None, line, "more follows its last line" if ended else "it ends here"
        if header is None:
            header = _core.read_snapshot_header(line.data)
            if header is None:
                return None, line, "it does not begin with a snapshot's header"
            seed = header["crc"]
            continue
        crc = _core.check_line(line.data, seed)
        body = line.data[:-_SEAL_BYTES]
        if crc is None:
            return None, line, f"its checksum is wrong, or does not go on from {seed:08x}"
        if body.startswith(b'{"state":') and len(body) > len(b'{"state":'):
            seed = crc
            continue
        end = _END.fullmatch(body)
        if end is None or (int(end[1]), int(end[2])) != (line.number - 2, line.offset):
            return None, line, "it is neither a state line nor the end that fits"
        ended = True
    if header is None or not ended:
        return None, line, "the end is missing"
    if header["index"] != file.index:
        return None, Line(b"", 1, 0), f"it is a snapshot of entry {header['index']}"
    header |= {"state_lines": line.number - 2, "bytes": line.offset + len(line.data)}
    return header, line, ""


def _load_snapshot(report: Report) -> None:
    found = numbered(report.path, SNAPSHOT_PREFIX)
    while found:
        file = found.pop()
        header, line, why = check_snapshot(file)
        if header is not None:
            _take_snapshot(report, file, header)
            report.leftovers += [older.path.name for older in found]
            return
        what = f"the snapshot is damaged: {why}"
        if not found:
            report.refuse(
                file.path.name,
                line.number,
                line.offset,
                f"{what}; the state up to entry {file.index} cannot be restored from it",
                f"put a good copy of this file back, or {LEAVE}",
            )
        report.quarantined = True
        report.find(
            "damage",
            file.path.name,
            line.number,
            line.offset,
            f"{what}; an older one is used",
            "start the member: it keeps the file under another name and does not vote before "
            "its leader has brought it up to date",
        )


def _take_snapshot(report: Report, file: Numbered, header: dict[str, Any]) -> None:
    assert report.meta is not None
    cluster = report.meta["cluster"]
    if cluster and header["cluster"] != cluster:
        report.refuse(
            file.path.name,
            1,
            0,
            f"it is of cluster {header['cluster']!r}, the directory of {cluster!r}",
            "put the right file back: this one was copied from elsewhere",
        )
    report.snapshot = header
    report.snapshot_file = file.path.name
    with file.path.open("rb") as opened:
        report.configuration = _configuration(opened.readline())


def _configuration(line: bytes) -> dict[str, Any] | None:
    """The members that an entry or a snapshot's header names; None where it names none."""
    try:
        value = json.loads(line)
        configuration = value.get("snapshot", value)["configuration"]
        valid = all(isinstance(m["id"], int) for m in configuration["members"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return configuration if valid else None


# --- the log, as in csrc/storage/recovery.c ---------------------------------------------------


class _Log:
    """The walk over the log that decides which of its lines count."""

    def __init__(self, report: Report) -> None:
        self.report = report
        snapshot = report.snapshot or {"index": 0, "term": 0, "chain": 0}
        self.base = int(snapshot["index"])
        self.base_crc = int(snapshot["chain"])
        self.expected = self.base + 1
        self.seed = self.base_crc
        self.term = int(snapshot["term"])
        self.conflict_crc: int | None = None
        self.dropped = False
        self.seeking = False
        self.passed_by = False
        # Of the segment that is being read:
        self.data = b""
        self.last_index = 0
        self.good_end = 0
        self.bad: Line | None = None
        self.bad_why = ""
        self.misplaced = False

    def load(self) -> None:
        segments = numbered(self.report.path, LOG_PREFIX)
        while len(segments) > 1 and segments[1].index <= self.base:
            self.report.leftovers.append(segments.pop(0).path.name)
        self.seeking = bool(self.base and segments and segments[0].index <= self.base)
        for at, segment in enumerate(segments):
            is_last = at + 1 == len(segments)
            self._read(segment, at == 0)
            if self.dropped:
                break
            if self.seeking and not is_last:
                continue  # whatever it holds, the snapshot covers it
            if self.bad is not None:
                self._end(segment, segments[at + 1 :])
                break
        self._settle(bool(segments))

    def _read(self, segment: Numbered, is_first: bool) -> None:
        self.bad, self.good_end, self.last_index = None, 0, segment.index - 1
        self.data = segment.path.read_bytes()
        allowed = self.base + 1 if self.seeking else self.expected
        holds_base = self.seeking and is_first and segment.index < allowed
        self.misplaced = segment.index != allowed and not holds_base
        if self.misplaced:
            self.bad = Line(b"", 1, 0)
            gap = segment.index > allowed
            self.bad_why = (
                f"entries {allowed} to {segment.index - 1} are missing before this file"
                if gap
                else f"this file should begin with entry {allowed}"
            )
            return
        if self.seeking and segment.index > self.base:
            self.seeking = False  # by its name it holds nothing to pass over
            self.passed_by = True
        first = self.expected
        name = segment.path.name
        for line in lines_of(self.data):
            if not line.whole:
                self._note_bad(line)
                break
            if not (self._seek(line, name) if self.seeking else self._follow(line, name)):
                break
        if self.expected > first:
            self.report.segments.append((name, first, self.expected - 1))

    def _note_bad(self, line: Line) -> None:
        """The first bad line since the last good one."""
        if self.bad is None:
            self.bad = line
            expected, seed = (None, None) if self.seeking else (self.expected, self.seed)
            self.bad_why = why_broken(line, expected, seed)

    def _follow(self, line: Line, name: str) -> bool:
        entry = read_entry(line, name, self.seed)
        if entry is not None and entry.index == self.expected and entry.term >= self.term:
            self.conflict_crc = None
            self.seed, self.term, self.last_index = entry.crc, entry.term, entry.index
            self.expected = entry.index + 1
            self.good_end = line.offset + len(line.data)
            self.bad = None
            if entry.kind == "configuration":
                self.report.configuration = _configuration(line.data)
            return True
        if self.conflict_crc is not None:
            other = read_entry(line, name, self.conflict_crc)
            self.dropped = other is not None and other.index == self.expected
        self.bad = None
        self._note_bad(line)
        return False

    def _seek(self, line: Line, name: str) -> bool:
        """At or before the snapshot only the index counts, and the checksum at its entry."""
        entry = read_entry(line, name, None)
        if entry is None:
            self._note_bad(line)
            return True
        if entry.index > self.base:
            self.seeking = False
            return self._follow(line, name)
        self.last_index, self.bad = entry.index, None
        self.good_end = line.offset + len(line.data)
        if entry.index == self.base:
            self.seeking = False
            self.conflict_crc = None if entry.crc == self.base_crc else entry.crc
        return True

    def _end(self, segment: Numbered, later: list[Numbered]) -> None:
        """The log ends here, before its files do: torn, or damaged?"""
        assert self.bad is not None
        report = self.report
        text = self.data[self.good_end :].rstrip(b"\n")
        verdict = "damage"
        if not later and not self.misplaced and not report.quarantined:
            expect = b'{"index":%d,"term":' % (self.last_index + 1)
            verdict = _judge(text, self.good_end, len(self.data), expect)
        ends = f"the log ends at entry {self.expected - 1}"
        place = (segment.path.name, self.bad.number, self.good_end)
        if verdict == "torn":
            report.tail_cut = True
            what = f"a torn write, never acknowledged ({self.bad_why}): {ends}"
            report.find("torn", *place, what, "start the member: it cuts this off by itself")
        elif verdict == "damage":
            report.quarantined = True
            names = ", ".join(file.path.name for file in later)
            more = f", and {names} cannot follow it" if later else ""
            report.find(
                "damage",
                *place,
                f"{self.bad_why}: {ends}{more}",
                "start the member: it keeps what follows under another name and does not vote "
                "before its leader has brought it up to date",
            )

    def _settle(self, any_segments: bool) -> None:
        report = self.report
        nothing_follows = self.expected == self.base + 1
        before = self.seeking or self.passed_by or self.conflict_crc is not None
        if self.base and any_segments and (self.dropped or (before and nothing_follows)):
            report.find(
                "note",
                report.snapshot_file,
                0,
                0,
                f"the log ends before entry {self.base} or is of another history: the snapshot "
                "came from a leader and replaces it",
                "",
            )
        report.last_index = self.expected - 1
        report.chain = self.seed
        report.last_term = self.term


# --- torn or damaged, as in csrc/storage/torn.c -----------------------------------------------


def _ends_sealed(text: bytes) -> bool:
    tail = text[-len(_SEAL) :]
    pairs = zip(_SEAL, tail, strict=True) if len(tail) == len(_SEAL) else ()
    return sum(p != ord(".") and p == t for p, t in pairs) >= 9


def _holds_control(text: bytes) -> bool:
    return any(byte < 0x20 for byte in text)


def _begins(text: bytes, expect: bytes) -> bool:
    return text[: len(expect)] == expect[: len(text)]


def _judge_last_line(text: bytes, offset: int, file_bytes: int, expect: bytes) -> str:
    if offset + len(text) == file_bytes:
        return "torn"
    half = _begins(text, expect) and not _holds_control(text)
    half = half and not _ends_sealed(text) and not _ends_sealed(text[:-1])
    return "torn" if file_bytes % BLOCK_BYTES == 0 and half else "damage"


def _judge(text: bytes, offset: int, file_bytes: int, expect: bytes) -> str:
    """ "nothing", "torn" or "damage"; the rule heads csrc/storage/torn.h.

    Args:
        text: from the end of the last good line to the last byte that is no LF.
        offset: where that begins in the file.
        file_bytes: the file's size.
        expect: how the next line must begin.
    """
    if not text:
        return "nothing"
    if len(text) > UNSYNCED_BYTES_MAX:
        return "damage"
    if not text.strip(b"\n\0"):
        return "nothing" if offset > 0 or text.startswith(b"\n") else "damage"
    first, lf, _ = text.partition(b"\n")
    if not lf:
        return _judge_last_line(text, offset, file_bytes, expect)
    at = len(first)
    aligned = at == 0 or (offset + at) % SECTOR_BYTES == 0
    hole = SECTOR_BYTES - (offset + at) % SECTOR_BYTES
    holed = hole <= len(text) - at and not text[at : at + hole].strip(b"\n")
    if _holds_control(first) or not (aligned and holed):
        return "damage"
    return "torn" if _begins(first, expect) else "damage"
