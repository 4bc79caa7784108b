"""Machines that misbehave, each as a server: python machines.py NAME ADDR [DATA]."""

from __future__ import annotations

import ctypes
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import raftpico
from raftpico.kvs import KeyValueStore


class Faulty(raftpico.Machine):
    """Does what it is told, the wrong things too; counts what was done before."""

    def __init__(self) -> None:
        self.total = 0
        self.calls = 0

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        if ctx.kind == raftpico.ApplyKind.COMMAND:
            self.calls += 1
        if input == "total":
            return self.total
        if input == "calls":
            return self.calls
        ((verb, argument),) = input.items()
        return getattr(self, f"do_{verb}")(argument)

    def do_add(self, number: int) -> int:
        self.total += number
        return self.total

    def do_raise(self, number: int) -> None:
        self.total += number
        raise KeyError("no such thing")

    def do_recurse(self, _: Any) -> Any:
        return self.do_recurse(_)

    def do_exit(self, _: Any) -> None:
        sys.exit(3)

    def do_unprintable(self, _: Any) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError("not even this")

        raise Unprintable

    def do_refuse(self, reason: str) -> None:
        raise raftpico.InvalidInput(reason)

    def do_nothing(self, _: Any) -> Any:
        return raftpico.NO_OUTPUT

    def do_object(self, _: Any) -> Any:
        return object()

    def do_nan(self, _: Any) -> Any:
        return float("nan")

    def do_infinity(self, _: Any) -> Any:
        return [float("inf")]

    def do_circle(self, _: Any) -> Any:
        circle: list[Any] = []
        circle.append(circle)
        return circle


class Slow(raftpico.Machine):
    """Takes its time, in each of the ways in which a machine can."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        ((verb, argument),) = input.items()
        if verb == "add":
            self.total += argument
        elif verb == "sleep":
            time.sleep(argument)
        elif verb == "spin":
            end = time.monotonic() + argument
            while time.monotonic() < end:
                pass
        elif verb == "hold":  # one C call that keeps the GIL for its whole duration
            ctypes.PyDLL(None).usleep(int(argument * 1e6))
        return self.total


class Context(raftpico.Machine):
    """Keeps all that the context offers, so that members which differ in it differ in state."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        now = [
            ctx.index,
            ctx.term,
            ctx.time,
            ctx.random.random(),
            ctx.random.randrange(1 << 40),
        ]
        if ctx.kind == raftpico.ApplyKind.COMMAND:
            self.seen.append(now)
        return [ctx.kind.value, *now]


class Own(raftpico.Machine):
    """A machine with a snapshot format of its own."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        if input is None:
            return self._lines
        self._lines.append(input)
        return len(self._lines)

    def snapshot(self) -> Any:
        return {"joined": "|".join(self._lines)}

    def restore(self, state: Any) -> None:
        self._lines = state["joined"].split("|")


class Ledger(raftpico.Machine):
    """Cells and totals, and a count of how often each command was applied.

    A command is [ID, VERB, KEY, ...], a query [VERB, KEY]. Every output is [VALUE, VERSION]:
    what linearizability.py's models say, and how many commands had been applied by then.
    """

    def __init__(self) -> None:
        self.cells: dict[str, Any] = {}
        self.totals: dict[str, int] = {}
        self.applied: dict[str, int] = {}
        self.version = 0

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        if ctx.kind == raftpico.ApplyKind.COMMAND:
            name, verb, key, *arguments = input
            self.applied[name] = self.applied.get(name, 0) + 1
            self.version += 1
        else:
            verb, key, *arguments = input
        return [getattr(self, f"do_{verb}")(key, *arguments), self.version]

    def do_get(self, key: str) -> Any:
        return self.cells.get(key)

    def do_put(self, key: str, value: Any) -> Any:
        before = self.cells.get(key)
        self.cells[key] = value
        return before

    def do_delete(self, key: str) -> Any:
        return self.cells.pop(key, None)

    def do_cas(self, key: str, expected: Any, value: Any) -> Any:
        before = self.cells.get(key)
        if before == expected:
            self.cells[key] = value
        return before

    def do_add(self, key: str, number: int) -> int:
        self.totals[key] = self.totals.get(key, 0) + number
        return self.totals[key]

    def do_total(self, key: str) -> int:
        return self.totals.get(key, 0)


class Saver(raftpico.Machine):
    """A machine whose snapshot() does as it was told by a command."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.index = 0  # of the last command
        self.mode: list[Any] = ["well"]

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        if ctx.kind == raftpico.ApplyKind.COMMAND:
            self.index = ctx.index
        ((verb, argument),) = input.items()
        if verb == "put":
            key, value = argument
            self.entries[key] = value
        elif verb == "fill":
            start, count = argument
            self.entries.update((f"k{at}", at) for at in range(start, start + count))
        elif verb == "mode":
            self.mode = argument
        elif verb == "get":
            return self.entries.get(argument)
        return len(self.entries)

    def snapshot(self) -> Iterator[Any]:
        verb, *arguments = self.mode
        if verb == "raise":
            raise ValueError("no snapshot today")
        if verb == "object":
            yield object()
        if verb == "wait":  # until the file is gone
            while Path(arguments[0]).exists():
                time.sleep(0.005)
        if verb == "spin":
            end = time.monotonic() + arguments[0]
            while time.monotonic() < end:
                pass
        yield {"index": self.index, "mode": self.mode}
        items = iter(self.entries.items())
        while piece := dict(itertools.islice(items, 100)):
            yield piece

    def restore(self, state: Iterator[Any]) -> None:
        first = next(state)
        self.index, self.mode = first["index"], first["mode"]
        self.entries = {key: value for piece in state for key, value in piece.items()}


class SaverInProcess(Saver):
    """The same where it cannot be forked."""

    snapshot_in_process = True


class Whole(raftpico.Machine):
    """All of its state is one value: a snapshot of one long line."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        ((verb, argument),) = input.items()
        if verb == "fill":
            start, count = argument
            self.entries.update(
                (f"k{at}", [at, {"text": "ä" * (at % 50), "half": at / 2}])
                for at in range(start, start + count)
            )
        elif verb == "get":
            return self.entries.get(argument)
        return len(self.entries)


def say(notice: dict[str, Any]) -> None:
    print(json.dumps(notice), flush=True)


MACHINES: dict[str, type[raftpico.Machine]] = {
    "faulty": Faulty,
    "slow": Slow,
    "context": Context,
    "own": Own,
    "compact": Faulty,
    "ledger": Ledger,
    "saver": Saver,
    "saver-in-process": SaverInProcess,
    "impatient": Saver,
    "frequent": Saver,
    "whole": Whole,
    "hasty": Slow,
    "store": KeyValueStore,
}

OPTIONS: dict[str, dict[str, Any]] = {
    "compact": {"segment_bytes": 100_000, "snapshot_log_bytes": 200_000},  # early snapshots
    "ledger": {
        "segment_bytes": 100_000,
        "snapshot_log_bytes": 150_000,
        "request_timeout": 4.0,
        "insecure": True,  # for network namespaces, whose addresses are not loopback's
        "on_notice": say,
    },
    "impatient": {"snapshot_timeout": 1.0},
    "frequent": {"snapshot_log_bytes": 60_000},
    "hasty": {"request_timeout": 1.5},  # requests have little time
    "store": {"segment_bytes": 3000},
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
    name, address, *data = sys.argv[1:]
    options = OPTIONS.get(name, {})
    machine = MACHINES[name]()
    raftpico.Server(machine, address, data=data[0] if data else None, **options).run()
