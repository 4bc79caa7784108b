"""The goals: each a comparison within one run, and whether it is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .groups import COUNTED, FAILOVER, MEMORY, REDIS_ROWS
from .load import Figures
from .systems import PYSYNCOBJ, RAFTPICO, REDIS, RUST

Look = Callable[[str, str], Figures]  # (row, system): medians, {} where there are none


@dataclass(frozen=True)
class Goal:
    """Our figure in `row`, over the same figure of `over` where that is given.

    over: (row, system). least: the value must not be below it; most: nor above.
    """

    what: str
    row: str
    figure: str
    over: tuple[str, str] | None = None
    least: float | None = None
    most: float | None = None

    def value(self, look: Look) -> float | None:
        """None where it, or what it is compared with, was not measured."""
        ours = look(self.row, RAFTPICO).get(self.figure)
        if ours is None or self.over is None:
            return ours
        other = look(*self.over).get(self.figure)
        return ours / other if other else None

    def reached(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def limit(self) -> str:
        unit = "" if self.over is None else " x"
        if self.least is not None:
            return f"at least {self.least:g}{unit}"
        return f"at most {self.most:g}{unit}"


def to_rust(
    row: str, figure: str, least: float | None = None, most: float | None = None
) -> Goal:
    names = {"rate": "rate", "processor_s": "processor time", "p50_ms": "median time"}
    names |= {"bytes_an_entry": "", "failover_ms": "", "mb_per_s": "bytes"}
    what = ": ".join(part for part in (row, names[figure]) if part)
    return Goal(f"{what}, to the Rust release", row, figure, (row, RUST), least, most)


PUT = "Put, 1,000 at a time"
KEYS = 1_000_000
SNAPSHOTS = f"Put, 32 at a time, {KEYS:,} keys"
SAME = 0.9  # "the same rate": medians of five rounds differ by as much

GOALS = [
    to_rust(PUT, "rate", least=3),
    to_rust(PUT, "processor_s", most=0.28),
    to_rust("Get query, 1,000 at a time", "rate", least=4),
    to_rust("Get query, 1,000 at a time", "processor_s", most=0.20),
    to_rust("Get local query, 1,000 at a time", "rate", least=2),
    to_rust("Get local query, 1,000 at a time", "processor_s", most=0.40),
    to_rust("Put, 32 at a time", "rate", least=1.8),
    to_rust("Put, 1 at a time", "p50_ms", most=0.6),
    to_rust("Get query, 1 at a time", "p50_ms", most=0.15),
    to_rust("Put of 1 KB", "rate", least=2.5),
    to_rust("Put of 10 KB", "mb_per_s", least=1.5),
    to_rust("Put of 1 MB", "mb_per_s", least=1.5),
    to_rust("Put, 3,000 connections", "rate", least=1.5),
    to_rust("Get local query, 3,000 connections", "rate", least=1.2),
    Goal("sends between servers a Put", COUNTED, "peer_sends", most=0.03),
    Goal("how often an entry is sent to a follower", COUNTED, "times_sent", most=1.02),
    to_rust(MEMORY, "bytes_an_entry", most=0.1),
    to_rust(FAILOVER, "failover_ms", most=0.5),
    Goal(f"{PUT}: rate, to PySyncObj", PUT, "rate", (PUT, PYSYNCOBJ), least=25),
    Goal(f"{PUT}: rate, to one Redis, pipelined by 20", PUT, "rate", (PUT, REDIS), least=1),
    *(Goal(f"{PUT}: rate, to {row}", PUT, "rate", (row, REDIS), least=1) for row in REDIS_ROWS),
    Goal(
        "Put, 1,000 connections: rate, to one Redis",
        "Put, 1,000 connections",
        "rate",
        ("Put, 1,000 connections", REDIS),
        least=1,
    ),
    Goal(
        "Put with 1,000,000 entries in the log: rate, to 10,000",
        "Put behind 1,000,000 entries",
        "rate",
        ("Put behind 10,000 entries", RAFTPICO),
        least=SAME,
    ),
    Goal(
        "seconds that a restart replays 1,000,000 entries",
        "restart of a member with 1,000,000 entries",
        "restart_s",
        most=2,
    ),
    Goal(
        "Put beside 10,000 idle connections: rate, to none",
        "Put, 10 connections, 10,000 idle ones",
        "rate",
        ("Put, 10 connections, 0 idle ones", RAFTPICO),
        least=SAME,
    ),
    Goal(
        "Put, five members: processor time, to three",
        "Put, 5 members",
        "processor_s",
        ("Put, 3 members", RAFTPICO),
        most=5 / 3,
    ),
    Goal(
        f"snapshots of {KEYS:,} keys under way: slowest percent of Puts, to without",
        f"{SNAPSHOTS}, snapshots under way",
        "p99_ms",
        (f"{SNAPSHOTS}, no snapshot", RAFTPICO),
        most=3,
    ),
    Goal(
        f"snapshots of {KEYS:,} keys under way: elections",
        f"{SNAPSHOTS}, snapshots under way",
        "elections",
        most=0,
    ),
]
