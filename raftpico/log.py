"""Look at a member's data directory: python -m raftpico.log show | follow | check | diff

It reads only, and takes no lock, so it is safe on a running member; `check --repair` is the
exception.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import raftpico
from raftpico import _core
from raftpico._datadir import (
    LOCK_NAME,
    LOG_PREFIX,
    META_NAME,
    SNAPSHOT_PREFIX,
    TEMPORARY_SUFFIX,
    Broken,
    Entry,
    lines_of,
    numbered,
    owner_of,
    walk,
)
from raftpico._diff import compare
from raftpico._follow import Follower
from raftpico._inspect import Report, inspect
from raftpico._words import describe, row, stamp

SOUND = 0
FOUND = 1
TROUBLE = 2

POLL_SECONDS = 0.1

COMMANDS = ("show", "follow", "check", "diff")
KINDS = ("command", "noop", "configuration")

DESCRIPTION = """\
Look at the data directory of a raftpico member: its log, its snapshot, its term and vote. It
works on a member that runs as on one that does not: nothing is written, and no lock is taken
(but for check --repair). The files are JSON Lines, so that jq, tail and cmp work on them as
well; this knows in addition what belongs together and checks every checksum."""

EPILOG = """\
examples:
  what is in the log, the last ten entries of it, one kind of them, all that mention a word
      python -m raftpico.log show data/4000
      python -m raftpico.log show data/4000 --last 10
      python -m raftpico.log show data/4000 --kind configuration
      python -m raftpico.log show data/4000 --from 4096 --to 5000 --grep '"foo"'

  the same for a program: one line of JSON for each entry, as it stands in the file
      python -m raftpico.log show data/4000 --json | jq -c .input

  watch what a member writes
      python -m raftpico.log follow data/4000

  is everything in order? what would the member do about it when it starts?
      python -m raftpico.log check data/4000
      python -m raftpico.log check data/4000 --repair

  do two members hold the same? where do they part?
      python -m raftpico.log diff data/4000 data/4001

what the words mean:
  chain     each entry's checksum goes on from that of the entry before, so the eight digits at
            one index stand for the whole log up to there
  torn      a write that a crash cut in two. It was never acknowledged; the member cuts it off
            when it starts, and loses nothing
  damage    anything else that is broken. It may have been acknowledged; the member keeps it
            under another name and does not vote before its leader has brought it up to date
  refused   the member does not start, for it cannot know what it has promised or what its
            state is; the advice says how to go on

exit status: 0 all in order (diff: they agree), 1 something was found (diff: they differ, or one
is damaged), 2 it could not be looked at (diff: there is nothing to compare)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        words.insert(0, "show")  # python -m raftpico.log DIR
    options = parser().parse_args(words)
    # Ends at once and in silence when the reader of the pipe goes away (head, less).
    with contextlib.suppress(ValueError, AttributeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except raftpico.RaftpicoError as error:
        print(f"raftpico log: {error}", file=sys.stderr)
        return TROUBLE
    except OSError as error:
        print(f"raftpico log: {error.filename}: {error.strerror}", file=sys.stderr)
        return TROUBLE
    except KeyboardInterrupt:
        return 130


# --- show -------------------------------------------------------------------------------------


def show(options: argparse.Namespace) -> int:
    """Print the entries that the options ask for."""
    if options.follow:
        return follow(options)
    if not options.json:
        print_head(options.dir)
    chosen: list[Entry] = []
    status = SOUND
    for item in settled(walk(options.dir, options.first), options.dir):
        if isinstance(item, Broken):
            print_broken(item)
            status = FOUND
            continue
        if item.index > options.to:
            break
        if not wanted(item, options):
            continue
        chosen.append(item)
        if options.last is None:
            print_item(chosen.pop(), options)
        else:
            del chosen[: -options.last]
    for item in chosen if options.last else ():
        print_item(item, options)
    return status


def settled(items: Iterator[Entry | Broken], directory: Path) -> Iterator[Entry | Broken]:
    """All but a broken line at the end of a log in use: it is being written."""
    held: list[Broken] = []
    for item in items:
        if isinstance(item, Broken):
            held.append(item)
            continue
        yield from held
        held.clear()
        yield item
    if held and owner_of(directory) is None:
        yield from held


def wanted(entry: Entry, options: argparse.Namespace) -> bool:
    """Whether the filters let an entry through."""
    return bool(
        options.first <= entry.index <= options.to
        and (not options.kind or entry.kind in options.kind)
        and (options.term is None or entry.term == options.term)
        and (options.grep is None or options.grep.search(entry.line))
    )


def print_head(directory: Path) -> None:
    """Who the member is, and its snapshot."""
    print(f"{directory}: {identity(directory)}")
    for file in numbered(directory, SNAPSHOT_PREFIX)[-1:]:
        try:
            with file.path.open("rb") as opened:
                header = _core.read_snapshot_header(opened.readline())
                size = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:  # a newer one has just replaced it
            continue
        if header is not None:
            print(
                f"snapshot of entry {header['index']} in term {header['term']}, "
                f"{stamp(header['time_ms'])}, {size:,} bytes"
            )
    print(f"{'index':>10} {'term':>6}  {'leader clock (UTC)':23}  {'from':10}  entry")


def identity(directory: Path) -> str:
    """Who the member is, as the last readable record of meta.jsonl says."""
    meta = None
    with contextlib.suppress(FileNotFoundError):
        for line in lines_of((directory / META_NAME).read_bytes()):
            meta = _core.read_meta(line.data) or meta
    return "no readable " + META_NAME if meta is None else describe(meta)


def print_broken(broken: Broken) -> None:
    """A line that does not fit, with its place, on standard error."""
    shown = broken.line[:80].decode(errors="replace").rstrip("\n")
    print(f"! {broken.place}: {broken.why}: {shown!r}", file=sys.stderr)


def print_item(entry: Entry, options: argparse.Namespace) -> None:
    """An entry as the options want it."""
    if options.json:
        sys.stdout.write(entry.line.decode(errors="replace"))
    else:
        print(row(entry, options.width))


# --- follow -----------------------------------------------------------------------------------


def follow(options: argparse.Namespace) -> int:
    """Print entries as they are written, until it is interrupted or has come to --to."""
    if not options.json:
        print_head(options.dir)
    recent = numbered(options.dir, LOG_PREFIX)[-2:]
    begin = options.first if options.first > 1 or not recent else recent[0].index
    follower = Follower(options.dir, begin)
    first = list(follower.poll())
    chosen = [e for e in first if isinstance(e, Entry) and wanted(e, options)]
    for entry in chosen[-options.last :] if options.last else []:
        print_item(entry, options)
    while follower.expected <= options.to:
        sys.stdout.flush()
        if not options.dir.is_dir():
            raise FileNotFoundError(2, "the directory is gone", str(options.dir))
        time.sleep(POLL_SECONDS)
        for item in follower.poll():
            if isinstance(item, str):
                print(f"-- {item}", file=sys.stderr, flush=True)
            elif wanted(item, options):
                print_item(item, options)
    return SOUND


# --- check ------------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Say what is in the directory and what is wrong with it."""
    directory: Path = options.dir
    report = inspect(directory)
    if options.repair:
        return repair(report, options.json)
    print_report(report, options.json)
    return SOUND if report.sound else FOUND


def verdict(report: Report) -> str:
    """What a start would come to."""
    if report.refused:
        return "refused"
    if report.quarantined:
        return "quarantine"
    return "torn" if report.tail_cut else "sound"


def print_report(report: Report, as_json: bool) -> None:
    """The whole of it."""
    if as_json:
        print(json.dumps(report_json(report)))
        return
    print(f"{report.path}: {describe(report.meta) if report.meta else 'no readable identity'}")
    if report.owner is not None:
        who = f"process {report.owner}" if report.owner else "a process"
        print(f"  in use by {who}: what is written at this moment may look torn")
    print(f"  {META_NAME}: {report.records} records")
    if report.snapshot is not None:
        print(
            f"  {report.snapshot_file}: entry {report.snapshot['index']} of term "
            f"{report.snapshot['term']}, {report.snapshot['state_lines']} state lines, "
            f"{report.snapshot['bytes']:,} bytes"
        )
    for name, first, last in report.segments:
        print(f"  {name}: entries {first} to {last}")
    for name in report.leftovers:
        why = "unfinished" if name.endswith(TEMPORARY_SUFFIX) else "covered by the snapshot"
        print(f"  {name}: {why}, goes at the next start")
    for finding in report.findings:
        print(f"{finding.severity.upper()}: {finding.place}: {finding.what}")
        if finding.advice:
            print(f"  what to do: {finding.advice}")
    print(conclusion(report))


def conclusion(report: Report) -> str:
    """The last line of a report."""
    ends = f"the log ends at entry {report.last_index}, chain {report.chain:08x}"
    if report.refused:
        return "the member does not start with this directory; nothing here repairs that"
    if report.quarantined and report.votes_alone:
        return (
            f"{ends}. No other member can make good what is missing, so it does not start: "
            "restore the directory from a backup; or, to go on without those entries, let "
            "check --repair set them aside and then remove quarantine.jsonl"
        )
    if report.quarantined:
        return f"{ends}; it starts without a vote, until its leader has brought it up to date"
    if report.tail_cut:
        return f"{ends}; nothing that was acknowledged is missing"
    return f"in order: every checksum is right; {ends}"


def report_json(report: Report) -> dict[str, Any]:
    """The report for a program."""
    return {
        "path": str(report.path),
        "verdict": verdict(report),
        "in_use_by": report.owner,
        "meta": report.meta,
        "snapshot": report.snapshot,
        "segments": [
            {"file": name, "first": first, "last": last}
            for name, first, last in report.segments
        ],
        "last_index": report.last_index,
        "last_term": report.last_term,
        "chain": f"{report.chain:08x}",
        "leftovers": report.leftovers,
        "findings": [vars(finding) for finding in report.findings],
    }


def repair(report: Report, as_json: bool) -> int:
    """Do what the member's next start would do, with a copy of everything kept."""
    print_report(report, as_json)
    if report.refused:
        return FOUND
    if report.sound:
        say("there is nothing to repair", as_json)
        return SOUND
    assert report.meta is not None
    with locked(report.path):
        kept = keep_copy(report.path)
    say(f"the directory as it was is kept in {kept}", as_json)
    done = _core.recover_directory(str(report.path), report.meta["address"], True)
    say(f"repaired: {done['note']}", as_json)
    after = inspect(report.path)
    print_report(after, as_json)
    return SOUND if after.sound else FOUND


def say(text: str, as_json: bool) -> None:
    """What is no part of the JSON goes to standard error."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, as a member does."""
    with (directory / LOCK_NAME).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = owner_of(directory)
            who = f"process {owner}" if owner else "a process"
            raise raftpico.InUse(
                f"{directory}: in use by {who}: stop that member first"
            ) from None
        yield


def keep_copy(directory: Path) -> Path:
    """A copy of the directory beside it, durable when this returns."""
    resolved = directory.resolve()
    number = 1
    while (kept := resolved.with_name(f"{resolved.name}.before-repair-{number}")).exists():
        number += 1
    shutil.copytree(resolved, kept)
    for path in [*kept.iterdir(), kept, kept.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return kept


# --- diff -------------------------------------------------------------------------------------


def diff(options: argparse.Namespace) -> int:
    """Compare two members' logs."""
    found = compare(options.a, options.b)
    if options.json:
        print(json.dumps(found.as_json()))
    else:
        print(*found.sides, *found.words, sep="\n")
    if found.outcome == "agree":
        return FOUND if found.broken else SOUND
    return TROUBLE if found.outcome == "nothing in common" else FOUND


# --- the command line -------------------------------------------------------------------------


def directory_path(text: str) -> Path:
    """An argument that names a directory."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    return path


def pattern(text: str) -> re.Pattern[bytes]:
    """An argument that is a regular expression over an entry's line."""
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from None


def count(text: str) -> int:
    """A number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def add_filters(made: argparse.ArgumentParser) -> None:
    """The options that choose entries and how they are shown."""
    made.add_argument("dir", metavar="DIR", type=directory_path, help="a data directory")
    made.add_argument(
        "--from",
        dest="first",
        metavar="INDEX",
        type=count,
        default=1,
        help="from this entry on",
    )
    made.add_argument(
        "--to", metavar="INDEX", type=count, default=2**53, help="up to this entry"
    )
    made.add_argument(
        "--kind",
        action="append",
        choices=KINDS,
        help="only entries of this kind (may be given more than once)",
    )
    made.add_argument("--term", metavar="TERM", type=count, help="only entries of this term")
    made.add_argument(
        "--grep",
        metavar="REGEX",
        type=pattern,
        help="only entries whose line matches (Python's regular expressions)",
    )
    made.add_argument("--json", action="store_true", help="the lines as they are stored")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    made.add_argument(
        "--width",
        metavar="COLUMNS",
        type=count,
        default=width,
        help="cut longer rows (default: the terminal's width; no limit in a file or pipe)",
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shape = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        prog="python -m raftpico.log",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=shape,
    )
    made.add_argument("--version", action="version", version=f"raftpico {raftpico.__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    added = commands.add_parser("show", help="print the entries of the log (COMMAND left out)")
    add_filters(added)
    added.add_argument("--last", metavar="N", type=count, help="only the last N of them")
    added.add_argument("--follow", action="store_true", help="and those that come, as follow")
    added.set_defaults(run=show)
    added = commands.add_parser("follow", help="print entries as they are written")
    add_filters(added)
    added.add_argument(
        "--last", metavar="N", type=count, default=10, help="begin with the last N (10)"
    )
    added.set_defaults(run=follow)
    added = commands.add_parser("check", help="verify identity, snapshot, log and checksums")
    added.add_argument("dir", metavar="DIR", type=directory_path, help="a data directory")
    added.add_argument(
        "--repair",
        action="store_true",
        help="do what the member's next start would do about it, and keep a copy of the "
        "directory as it was in DIR.before-repair-N. The member must be stopped",
    )
    added.add_argument("--json", action="store_true", help="one line of JSON")
    added.set_defaults(run=check)
    added = commands.add_parser("diff", help="the first entry at which two members differ")
    added.add_argument("a", metavar="A", type=directory_path, help="a data directory")
    added.add_argument("b", metavar="B", type=directory_path, help="another one")
    added.add_argument("--json", action="store_true", help="one line of JSON")
    added.set_defaults(run=diff)
    return made


if __name__ == "__main__":
    sys.exit(main())
