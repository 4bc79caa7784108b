"""What is compared, and how each is started: three members with synced data files.

| system | its clients here | synced |
| --- | --- | --- |
| raftpico, the Rust release | JSON lines over TCP, one connection a member | every command |
| etcd | gRPC over HTTP/2, one connection a member | every command |
| PySyncObj | none: it has no protocol for them, so members make the load | never |
| Redis | its own, 50 connections, pipelined; one server, not replicated | every command |
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .load import Figures, Stall, drive, drive_jlot, find_jlot
from .processes import free_port, processor_seconds, resident_bytes, tracing, until
from .shape import COMMAND, LOCAL, QUERY, Shape

HERE = Path(__file__).resolve().parent
ALL_KINDS = (COMMAND, QUERY, LOCAL)


class Cluster:
    """The processes of one system, with data files in `directory`."""

    kinds: ClassVar[tuple[str, ...]] = ALL_KINDS

    def __init__(
        self, command: Sequence[str], directory: Path, members: int, traced: bool = False
    ) -> None:
        self.command = tuple(command)
        self.directory = directory
        self.ports = [free_port() for _ in range(members)]
        self.processes: list[subprocess.Popen[Any]] = []
        self.traced = traced
        self.traces: list[Path] = []  # of each process, when it is traced
        self.log = (directory / "log.txt").open("ab")
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start the members and make them one; ready for a load when this returns."""
        raise NotImplementedError

    def load(self, shape: Shape, seed: int, jlot: bool) -> Figures:
        """One run of a load. Raises Stall."""
        raise NotImplementedError

    def spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        if self.traced:
            self.traces.append(self.directory / f"strace-{len(self.traces)}.txt")
            command = [*tracing(self.traces[-1]), *command]
        options = {"stdout": self.log, **options}
        process = subprocess.Popen(
            list(command), stderr=self.log, cwd=self.directory, **options
        )
        self.processes.append(process)
        return process

    def run(self, shape: Shape, seed: int, jlot: bool = False) -> Figures:
        """A load with the processor time that all members spent on 100,000 requests of it."""
        before = self.processor_seconds()
        found = self.load(shape, seed, jlot)
        used = self.processor_seconds() - before
        found["processor_s"] = used * 100_000 / found["answered"]
        return found

    @property
    def pids(self) -> list[int]:
        return [p.pid for p in self.processes if p.poll() is None]

    def processor_seconds(self) -> float:
        return sum(processor_seconds(pid) for pid in self.pids)

    def resident_bytes(self) -> int:
        return sum(resident_bytes(pid) for pid in self.pids)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.log.close()


# --- raftpico and the Rust release ------------------------------------------------------------


def call(port: int, method: str, params: Any = None, timeout: float = 10.0) -> dict[str, Any]:
    """One request on a connection of its own; its whole response."""
    message = {"jsonrpc": "2.0", "id": 0, "method": method}
    if params is not None:
        message["params"] = params
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(json.dumps(message).encode() + b"\n")
        with connection.makefile("rb") as lines:
            response: dict[str, Any] = json.loads(lines.readline())
            return response


def put_once(port: int, timeout: float) -> bool:
    """Whether a Put was answered with a result in that time."""
    params = {"kind": "Command", "input": {"Put": ["bench", 1]}}
    try:
        return "result" in call(port, "Apply", params, timeout)
    except (OSError, ValueError):
        return False


ALREADY_ADDED = 101  # by this very request, sent again when the leader changed meanwhile


class JsonCluster(Cluster):
    """A key-value store that speaks the protocol of README.md; also failover and snapshots."""

    def start(self) -> None:
        for port in self.ports:
            self.start_member(port)
        for port in self.ports:
            until(lambda port=port: self.answers(port), f"the server on port {port} answers")
        call(self.ports[0], "CreateCluster")
        for port in self.ports[1:]:
            added = call(self.ports[0], "AddServer", {"addr": f"127.0.0.1:{port}"}, 30.0)
            if "error" in added and added["error"]["code"] != ALREADY_ADDED:
                raise RuntimeError(f"AddServer: {added}")
        for port in self.ports:
            until(lambda port=port: put_once(port, 2.0), f"a Put on port {port} is answered")

    def start_member(self, port: int) -> None:
        self.spawn([*self.command, f"127.0.0.1:{port}", str(self.data(port))])

    def data(self, port: int) -> Path:
        return self.directory / str(port)

    @staticmethod
    def answers(port: int) -> bool:
        try:
            return "result" in call(port, "GetServerState", timeout=2.0)
        except (OSError, ValueError):
            return False

    def load(self, shape: Shape, seed: int, jlot: bool) -> Figures:
        lines = requests(shape, seed)
        connections = shape.connections or len(self.ports)
        if jlot and find_jlot() and connections == len(self.ports) and not shape.idle:
            return drive_jlot(lines, self.ports, shape.in_flight)
        return drive(
            "line",
            lines,
            self.ports,
            shape.in_flight,
            connections,
            shape.idle,
            directory=self.directory,
        )

    def states(self) -> dict[int, dict[str, Any]]:
        return {p: call(p, "GetServerState")["result"] for p in self.ports}

    def leader(self) -> int:
        """The leader's port."""
        return next(p for p, s in self.states().items() if s["role"] == "Leader")

    def process_of(self, port: int) -> subprocess.Popen[Any]:
        return self.processes[self.ports.index(port)]

    def failover_seconds(self) -> float:
        """From kill -9 of the leader to the first Put that a survivor answers."""
        leader = self.leader()
        survivors = [p for p in self.ports if p != leader]
        self.process_of(leader).kill()
        start = time.monotonic()
        until(
            lambda: any(put_once(port, 0.1) for port in survivors),
            "a Put after the loss of the leader",
            60.0,
        )
        return time.monotonic() - start

    def restart_seconds(self, port: int) -> float:
        """From the start of a member that was killed until it has applied its log again."""
        wanted = call(port, "GetServerState")["result"]["applied_index"]
        at = self.ports.index(port)
        self.processes[at].kill()
        self.processes[at].wait()
        start = time.monotonic()
        self.start_member(port)
        self.processes[at] = self.processes.pop()
        until(lambda: self.has_applied(port, wanted), f"{port} has replayed its log", 120.0)
        return time.monotonic() - start

    @staticmethod
    def has_applied(port: int, index: int) -> bool:
        try:
            state = call(port, "GetServerState", timeout=10.0)
        except (OSError, ValueError):
            return False
        return bool(state["result"]["applied_index"] >= index)

    def log_bytes(self, port: int) -> int | None:
        """Of the entries in the member's log; None where the files are not as ours.

        What a segment is filled ahead with does not count.
        """
        if not self.data(port).is_dir():
            return None
        files = self.data(port).glob("log-*.jsonl")
        return sum(len(path.read_bytes().rstrip(b"\n")) for path in files)


def requests(shape: Shape, seed: int) -> Iterator[bytes]:
    """Lines of JSON-RPC; their ids count from 0, as the generator expects."""
    for i, (key, value) in enumerate(shape.pairs(seed)):
        put = {"Put": [key, value]} if shape.kind == COMMAND else {"Get": key}
        params = {"kind": shape.kind, "input": put}
        message = {"jsonrpc": "2.0", "id": i, "method": "Apply", "params": params}
        yield json.dumps(message, separators=(",", ":")).encode() + b"\n"


# --- etcd -------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes in a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


class EtcdCluster(Cluster):
    """Three members; its own gRPC calls, so that no gateway is measured."""

    paths: ClassVar = {
        COMMAND: "/etcdserverpb.KV/Put",
        QUERY: "/etcdserverpb.KV/Range",
        LOCAL: "/etcdserverpb.KV/Range",
    }

    def start(self) -> None:
        peers = [free_port() for _ in self.ports]
        initial = ",".join(f"n{i}=http://127.0.0.1:{p}" for i, p in enumerate(peers))
        for i, (port, peer) in enumerate(zip(self.ports, peers, strict=True)):
            client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
            words = ["--name", f"n{i}", "--data-dir", str(self.directory / f"n{i}")]
            words += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
            words += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
            words += ["--initial-cluster", initial, "--initial-cluster-state", "new"]
            self.spawn([*self.command, *words])
        for port in self.ports:
            until(lambda port=port: self.answers(port), f"etcd on port {port} answers a Put")

    def answers(self, port: int) -> bool:
        with contextlib.suppress(Stall):
            shape = Shape(COMMAND, 1, 1)
            drive("grpc", self.messages(shape, 0), [port], 1, 1, 0, self.paths[COMMAND])
            return True
        return False

    @staticmethod
    def messages(shape: Shape, seed: int) -> Iterator[bytes]:
        """PutRequest{key = 1, value = 2} or RangeRequest{key = 1, serializable = 7}."""
        for key, value in shape.pairs(seed):
            if shape.kind == COMMAND:
                yield field(1, key.encode()) + field(2, str(value).encode())
            else:
                yield field(1, key.encode()) + (b"\x38\x01" if shape.kind == LOCAL else b"")

    def load(self, shape: Shape, seed: int, jlot: bool) -> Figures:
        return drive(
            "grpc",
            self.messages(shape, seed),
            self.ports,
            shape.in_flight,
            shape.connections or len(self.ports),
            shape.idle,
            self.paths[shape.kind],
            self.directory,
        )


# --- Redis ------------------------------------------------------------------------------------


def resp(*words: str) -> bytes:
    """A command in the protocol of Redis."""
    pieces = [f"*{len(words)}\r\n"]
    pieces += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return "".join(pieces).encode()


class RedisCluster(Cluster):
    """One server that syncs before it answers; not replicated."""

    kinds: ClassVar = (COMMAND, LOCAL)
    connections_pipelined = 50

    def start(self) -> None:
        self.ports = self.ports[:1]
        words = ["--port", str(self.ports[0]), "--dir", str(self.directory), "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", "always"]
        words += ["--maxclients", "15000", "--bind", "127.0.0.1"]
        self.spawn([*self.command, *words])
        until(self.answers, "Redis answers")

    def answers(self) -> bool:
        with contextlib.suppress(Stall):
            drive("resp", [resp("PING")], self.ports, 1, 1)
            return True
        return False

    def load(self, shape: Shape, seed: int, jlot: bool) -> Figures:
        lines = (
            resp("SET", key, str(value)) if shape.kind == COMMAND else resp("GET", key)
            for key, value in shape.pairs(seed)
        )
        connections = shape.connections or min(self.connections_pipelined, shape.in_flight)
        return drive(
            "resp",
            lines,
            self.ports,
            shape.in_flight,
            connections,
            shape.idle,
            directory=self.directory,
        )


# --- PySyncObj --------------------------------------------------------------------------------


class PySyncObjCluster(Cluster):
    """Three processes with its journal on. The load is made in the members, by its own API."""

    kinds: ClassVar = (COMMAND,)

    def start(self) -> None:
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        for i, address in enumerate(addresses):
            others = [other for other in addresses if other != address]
            journal = str(self.directory / f"journal-{i}")
            command = [*self.command, journal, address, *others]
            self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for process in self.processes:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a member of PySyncObj has ended")

    def load(self, shape: Shape, seed: int, jlot: bool) -> Figures:
        """A third of the requests in each member; the slowest of them ends the run."""
        members = self.processes[: min(len(self.processes), shape.in_flight)]
        order = {"count": shape.count // len(members), "seed": seed}
        order |= {"in_flight": shape.in_flight // len(members), "value": shape.value_bytes}
        for process in members:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        parts = []
        for process in members:
            line = process.stdout.readline()
            if not line:
                raise Stall("a member of PySyncObj has ended")
            parts.append(json.loads(line))
        if any(part["unanswered"] for part in parts):
            raise Stall("commands never answered")
        answered = sum(part["answered"] for part in parts)
        seconds = max(p["end"] for p in parts) - min(p["start"] for p in parts)
        took = sorted(ms for part in parts for ms in part["sample_ms"])
        found = {
            f"p{p}_ms": took[min(len(took) - 1, len(took) * p // 100)] for p in (50, 90, 99)
        }
        return found | {
            "rate": answered / seconds,
            "max_ms": took[-1],
            "seconds": seconds,
            "answered": answered,
            "errors": sum(part["errors"] for part in parts),
        }


# --- which of them are here -------------------------------------------------------------------

RAFTPICO = "raftpico"
RUST = "Rust release"
ETCD = "etcd"
REDIS = "Redis (one)"
PYSYNCOBJ = "PySyncObj"


@dataclass(frozen=True)
class System:
    """A name, its command, and what makes a cluster of it.

    scale: the part of a load's requests that it gets, for one that needs long for them.
    """

    name: str
    command: tuple[str, ...]
    make: Callable[[Sequence[str], Path, int, bool], Cluster]
    scale: float = 1.0

    @contextlib.contextmanager
    def running(
        self,
        parent: Path | None,
        members: int = 3,
        extra: Sequence[str] = (),
        traced: bool = False,
    ) -> Iterator[Any]:
        """A cluster that is ready, gone with its files afterwards.

        extra: more words for each member's command. traced: its system calls are recorded.
        """
        with tempfile.TemporaryDirectory(prefix="raftpico-bench-", dir=parent) as directory:
            cluster = self.make([*self.command, *extra], Path(directory), members, traced)
            try:
                yield cluster
            finally:
                cluster.stop()


def raftpico(*program: str) -> System:
    """Our own members; `program` other than the key-value store of the package."""
    words = program or ("-m", "raftpico.kvs")
    return System(RAFTPICO, (sys.executable, *words, "--quiet"), JsonCluster)


def find_systems() -> tuple[list[System], list[str]]:
    """(those that are installed, a line for each that is not). Ours comes first."""
    systems, missing = [raftpico()], []
    rust = shutil.which(os.environ.get("RAFTPICO_RUST") or "kvs")
    if rust:
        systems.append(System(RUST, (rust,), JsonCluster))
    else:
        missing.append(f"{RUST}: cargo install raftpico --example kvs, RAFTPICO_RUST names it")
    if importlib.util.find_spec("pysyncobj"):
        member = (sys.executable, str(HERE / "pysyncobj_member.py"))
        systems.append(System(PYSYNCOBJ, member, PySyncObjCluster, 0.05))
    else:
        missing.append(f"{PYSYNCOBJ}: pip install pysyncobj")
    for name, program, make, scale in (
        (ETCD, "etcd", EtcdCluster, 0.2),
        (REDIS, "redis-server", RedisCluster, 1.0),
    ):
        path = shutil.which(program)
        if path:
            systems.append(System(name, (path,), make, scale))
        else:
            missing.append(f"{name}: {program} is not in the PATH")
    return systems, missing
