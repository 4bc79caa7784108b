"""Machines that misbehave, each as a server: python machines.py NAME ADDR [DATA]."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import raftpico


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


MACHINES = {"faulty": Faulty, "slow": Slow, "context": Context, "own": Own, "compact": Faulty}

# Small files and early snapshots.
OPTIONS = {"compact": {"segment_bytes": 100_000, "snapshot_log_bytes": 200_000}}

if __name__ == "__main__":
    name, address, *data = sys.argv[1:]
    options = OPTIONS.get(name, {})
    machine = MACHINES[name]()
    raftpico.Server(machine, address, data=data[0] if data else None, **options).run()
