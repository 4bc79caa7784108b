"""The workloads, in groups: what is run on which systems, and what each run tells.

A group runs on one system at a time and yields (row, figures). Figures are numbers by name;
those of a load are load.drive()'s, with "processor_s" for all servers and 100,000 requests.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .load import Figures, Stall
from .processes import counting, find_strace
from .shape import COMMAND, LOCAL, QUERY, Shape
from .systems import (
    ETCD,
    PYSYNCOBJ,
    RAFTPICO,
    REDIS,
    RUST,
    JsonCluster,
    System,
    call,
    raftpico,
)

Found = Iterator[tuple[str, Figures]]
HERE = Path(__file__).resolve().parent
NAMES = {COMMAND: "Put", QUERY: "Get query", LOCAL: "Get local query"}
NO_SNAPSHOTS = ("--snapshot-log-mb", "100000")


@dataclass(frozen=True)
class Context:
    """What every run needs to know."""

    quick: bool
    directory: Path | None
    seed: int
    jlot: bool  # the load of the group `work` is made by jlot, where it is installed

    def scaled(self, shape: Shape, system: System) -> Shape:
        """Fewer requests when in a hurry or for a slow system; five windows at least."""
        part = system.scale / (5 if self.quick else 1)
        least = min(shape.count, max(50, 5 * shape.in_flight))
        return replace(shape, count=max(least, int(shape.count * part)))


@dataclass(frozen=True)
class Group:
    """rows: the names of what it yields, in order. systems: on which it runs."""

    name: str
    about: str
    systems: tuple[str, ...]
    rows: Callable[[bool], list[str]]  # of `quick`
    run: Callable[[Context, System], Found]


# --- work: the table of the goals -------------------------------------------------------------

WORK = [
    (f"{NAMES[kind]}, {in_flight:,} at a time", Shape(kind, in_flight, many * scale))
    for in_flight, scale in ((1000, 100), (32, 20), (1, 2))
    for kind, many in ((COMMAND, 1000), (QUERY, 1000), (LOCAL, 4000))
]


def run_work(context: Context, system: System) -> Found:
    with system.running(context.directory) as cluster:
        for row, shape in WORK:
            if shape.kind in cluster.kinds:
                shape = context.scaled(shape, system)
                yield row, cluster.run(shape, context.seed, context.jlot)


# --- values -----------------------------------------------------------------------------------

VALUES = [
    ("Put of 100 B", Shape(COMMAND, 1000, 50_000, value_bytes=100)),
    ("Put of 1 KB", Shape(COMMAND, 1000, 30_000, value_bytes=1000)),
    ("Put of 10 KB", Shape(COMMAND, 100, 5_000, value_bytes=10_000)),
    ("Put of 1 MB", Shape(COMMAND, 8, 200, value_bytes=1_000_000)),
]


def run_values(context: Context, system: System) -> Found:
    """The keys are few, so that the state stays small beside the log."""
    for row, shape in VALUES:
        if system.name == ETCD and shape.value_bytes > 50_000:
            continue  # more than the generator's HTTP/2 can send
        shape = replace(context.scaled(shape, system), keys=100)
        with system.running(context.directory) as cluster:
            found = cluster.run(shape, context.seed)
            yield row, found | {"mb_per_s": found["rate"] * shape.value_bytes / 1e6}


# --- connections ------------------------------------------------------------------------------

CONNECTIONS = (3, 100, 1000, 3000, 10_000)
IDLE = (0, 10_000)


def connection_rows(quick: bool) -> list[str]:
    some = CONNECTIONS[: 3 if quick else None]
    return [f"{NAMES[k]}, {n:,} connections" for n in some for k in (COMMAND, LOCAL)]


def run_connections(context: Context, system: System) -> Found:
    """One request at a time on each, but a thousand at least altogether."""
    for connections in CONNECTIONS[: 3 if context.quick else None]:
        with system.running(context.directory) as cluster:
            for kind in (COMMAND, LOCAL):
                count = 200_000 if kind == LOCAL else 100_000
                shape = Shape(kind, max(1000, connections), count, connections)
                row = f"{NAMES[kind]}, {connections:,} connections"
                yield row, cluster.run(context.scaled(shape, system), context.seed)


def idle_rows(quick: bool) -> list[str]:
    return [f"Put, 10 connections, {n:,} idle ones" for n in IDLE]


def run_idle(context: Context, system: System) -> Found:
    for idle in IDLE:
        with system.running(context.directory) as cluster:
            shape = Shape(COMMAND, 1000, 100_000, connections=10, idle=idle)
            row = f"Put, 10 connections, {idle:,} idle ones"
            yield row, cluster.run(context.scaled(shape, system), context.seed)


# --- what grows -------------------------------------------------------------------------------

MEMBERS = (1, 3, 5, 7)


def members_rows(quick: bool) -> list[str]:
    return [f"Put, {n} member{'s' if n > 1 else ''}" for n in MEMBERS]


def run_members(context: Context, system: System) -> Found:
    for row, members in zip(members_rows(context.quick), MEMBERS, strict=True):
        with system.running(context.directory, members) as cluster:
            shape = context.scaled(Shape(COMMAND, 1000, 100_000), system)
            yield row, cluster.run(shape, context.seed)


def powers(first: int, quick: bool) -> list[int]:
    return [10**n for n in range(first, 6 if quick else 7)]


def entries_rows(quick: bool) -> list[str]:
    kinds = ("Put behind", "restart of a member with")
    return [f"{kind} {n:,} entries" for n in powers(3, quick) for kind in kinds]


def run_entries(context: Context, system: System) -> Found:
    """Few keys and no snapshots: the log alone grows."""
    for entries in powers(3, context.quick):
        with system.running(context.directory, extra=NO_SNAPSHOTS) as cluster:
            cluster.run(Shape(COMMAND, 1000, entries, keys=100), context.seed)
            shape = context.scaled(Shape(COMMAND, 1000, 100_000, keys=100), system)
            yield f"Put behind {entries:,} entries", cluster.run(shape, context.seed)
            follower = next(p for p in cluster.ports if p != cluster.leader())
            seconds = cluster.restart_seconds(follower)
            yield f"restart of a member with {entries:,} entries", {"restart_s": seconds}


# --- snapshots --------------------------------------------------------------------------------


def snapshot_rows(quick: bool) -> list[str]:
    ways = ("no snapshot", "snapshots under way")
    return [f"Put, 32 at a time, {n:,} keys, {way}" for n in powers(3, quick) for way in ways]


class Snapshots:
    """Takes one snapshot after the other on every member until it is told to stop."""

    def __init__(self, ports: list[int]) -> None:
        self.taken: set[tuple[int, int]] = set()  # (port, index)
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.take, args=(port,)) for port in ports]

    def take(self, port: int) -> None:
        while not self.stopped.is_set():
            answer = call(port, "TakeSnapshot", timeout=120.0)
            if "result" in answer:
                self.taken.add((port, answer["result"]["snapshot_index"]))

    def __enter__(self) -> Snapshots:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def run_snapshots(context: Context, system: System) -> Found:
    for keys in powers(3, context.quick):
        with system.running(context.directory, extra=NO_SNAPSHOTS) as cluster:
            cluster.run(Shape(COMMAND, 1000, keys, keys=keys), context.seed)
            shape = context.scaled(Shape(COMMAND, 32, 100_000, keys=keys), system)
            row = f"Put, 32 at a time, {keys:,} keys"
            yield f"{row}, no snapshot", cluster.run(shape, context.seed)
            before = call(cluster.ports[0], "GetServerState")["result"]["current_term"]
            with Snapshots(cluster.ports) as snapshots:
                found = cluster.run(shape, context.seed)
            after = call(cluster.ports[0], "GetServerState")["result"]["current_term"]
            found |= {"snapshots": len(snapshots.taken), "elections": after - before}
            yield f"{row}, snapshots under way", found


# --- the others -------------------------------------------------------------------------------

FAILOVER = "leader killed, first answered Put"


def run_failover(context: Context, system: System) -> Found:
    with system.running(context.directory) as cluster:
        yield FAILOVER, {"failover_ms": cluster.failover_seconds() * 1000}


BUSY = [(name, shape) for name, shape in WORK if shape.in_flight in (1, 1000)]


def busy_rows(quick: bool) -> list[str]:
    return [f"{row}, beside a busy thread" for row, _ in BUSY]


def run_busy(context: Context, system: System) -> Found:
    """A thread that computes in Python has the lock of the interpreter most of the time."""
    busy = raftpico(str(HERE / "busy_member.py"))
    with busy.running(context.directory) as cluster:
        for row, shape in BUSY:
            shape = context.scaled(replace(shape, count=max(100, shape.count // 20)), system)
            yield f"{row}, beside a busy thread", cluster.run(shape, context.seed)


COUNTED = "what a Put costs, 1,000 at a time (counted)"
COUNTED_ALONE = "what a Put costs, one at a time (counted)"
MEMORY = "memory an entry"


def run_counts(context: Context, system: System) -> Found:
    """Under strace, which slows the servers: counts only, no times are taken."""
    if find_strace() is not None:
        with system.running(context.directory, traced=True) as cluster:
            yield COUNTED, count(cluster, Shape(COMMAND, 1000, 20_000), context)
            yield COUNTED_ALONE, count(cluster, Shape(COMMAND, 1, 300), context)
    extra = NO_SNAPSHOTS if system.name == RAFTPICO else ()
    with system.running(context.directory, extra=extra) as cluster:
        cluster.run(Shape(COMMAND, 1000, 20_000, keys=100), context.seed)  # buffers have grown
        before = cluster.resident_bytes()
        entries = 100_000 if context.quick else 1_000_000
        cluster.run(Shape(COMMAND, 1000, entries, keys=100), context.seed)
        grown = cluster.resident_bytes() - before
        yield MEMORY, {"bytes_an_entry": grown / entries / len(cluster.ports)}


def count(cluster: JsonCluster, shape: Shape, context: Context) -> Figures:
    """Sends, bytes, syncs and system calls a Put."""
    leader = cluster.leader()
    before = cluster.log_bytes(leader)
    with counting(cluster.traces, cluster.ports) as counts:
        cluster.run(shape, context.seed)
    found = {
        "peer_sends": counts.peer_sends / shape.count,
        "peer_bytes": counts.peer_bytes / shape.count,
        "client_sends": counts.client_sends / shape.count,
        "syncs": counts.syncs / shape.count,
        "system_calls": sum(counts.calls.values()) / shape.count,
        "futexes": counts.calls["futex"] / shape.count,
    }
    if before is not None:
        logged = (cluster.log_bytes(leader) or 0) - before
        sent = counts.peer_bytes_by_member[cluster.ports.index(leader)]
        found["log_bytes"] = logged / shape.count
        # Headers and answers to forwarded requests are in it: the bare log would be 1.0.
        found["times_sent"] = sent / (logged * (len(cluster.ports) - 1))
    return found


REDIS_ROWS = {
    "SET by redis-benchmark, 1,000 connections": ("-c", "1000"),
    "SET by redis-benchmark, 50 connections, pipelined by 20": ("-c", "50", "-P", "20"),
}


def run_redis(context: Context, system: System) -> Found:
    """Redis by its own load generator, which knows it best."""
    program = shutil.which("redis-benchmark")
    if program is None:
        return
    number = "20000" if context.quick else "100000"
    for row, words in REDIS_ROWS.items():
        with system.running(context.directory) as cluster:
            command = [program, "-p", str(cluster.ports[0]), "-t", "set", "-n", number]
            command += ["-r", "140608", "-d", "10", "--csv", *words]
            yield row, redis_figures(command)


def redis_figures(command: list[str]) -> Figures:
    """The line "SET" of the CSV, by the names in its first line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode != 0 or len(lines) < 2:
        raise Stall(f"redis-benchmark: {done.stderr[-300:]}")
    names, cells = ([c.strip('"') for c in line.split(",")] for line in (lines[0], lines[-1]))
    read: dict[str, Any] = dict(zip(names, cells, strict=False))
    return {
        "rate": float(read["rps"]),
        "p50_ms": float(read["p50_latency_ms"]),
        "p99_ms": float(read["p99_latency_ms"]),
        "max_ms": float(read["max_latency_ms"]),
    }


EVERYBODY = (RAFTPICO, RUST, PYSYNCOBJ, ETCD, REDIS)

GROUPS = [
    Group("work", "kinds of requests", EVERYBODY, lambda _: [r for r, _ in WORK], run_work),
    Group("failover", "", (RAFTPICO, RUST), lambda _: [FAILOVER], run_failover),
    Group(
        "counts",
        "system calls, bytes, memory",
        (RAFTPICO, RUST),
        lambda _: [COUNTED, COUNTED_ALONE, MEMORY],
        run_counts,
    ),
    Group("redis", "Redis's own benchmark", (REDIS,), lambda _: [*REDIS_ROWS], run_redis),
    Group("values", "", (RAFTPICO, RUST, ETCD), lambda _: [r for r, _ in VALUES], run_values),
    Group("connections", "", (RAFTPICO, RUST, REDIS), connection_rows, run_connections),
    Group("idle", "idle connections", (RAFTPICO,), idle_rows, run_idle),
    Group("members", "1 to 7", (RAFTPICO, RUST), members_rows, run_members),
    Group("entries", "in the log", (RAFTPICO,), entries_rows, run_entries),
    Group("snapshots", "under way", (RAFTPICO,), snapshot_rows, run_snapshots),
    Group("busy", "a busy Python thread", (RAFTPICO,), busy_rows, run_busy),
]

QUICK = ("work", "failover", "counts", "redis", "idle")
