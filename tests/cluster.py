"""Real clusters for the tests: every member is a process of its own on a real socket.

Nothing here sleeps for luck: each wait has a condition and a deadline. Nothing is left behind:
a cluster that is closed has no process left, and a member that died without being told to fails
the test that it belongs to.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

KVS = (sys.executable, "-m", "raftpico.kvs")

# Deadlines are for a quiet machine; a sanitizer build or a crowded one sets this higher.
PATIENCE = float(os.environ.get("RAFTPICO_TEST_PATIENCE", "1"))

# In the environment of every process that a test run starts, to find those that it left behind.
RUN_VARIABLE = "RAFTPICO_TEST_RUN"

# A server answers every request within its own deadline (60 s by default): this is past it.
ANSWER_SECONDS = 70.0

# What a process says when it found a fault in itself; no test may provoke these.
FAULTS = ("broken invariant", "AddressSanitizer", "runtime error:", "Fatal Python error")


def wait_for(
    what: str, condition: Callable[[], T], deadline: float = 30.0, pause: float = 0.02
) -> T:
    """Poll `condition` until it returns something true and return that."""
    end = time.monotonic() + deadline * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline * PATIENCE:.0f} s: {what}")
        time.sleep(pause)


# --- ports ------------------------------------------------------------------------------------


class Port:
    """A TCP port that stays reserved until it is released.

    The socket is bound alone (so nobody else has the port) and only then allows address reuse:
    a server that sets SO_REUSEADDR, as all do, can listen beside it, again and again, while
    nobody who merely looks for a free port gets it. It lies below the range that the kernel
    hands out by itself.
    """

    def __init__(self, number: int | None = None) -> None:
        for _ in range(1000):
            holder = socket.socket()
            try:
                holder.bind(("127.0.0.1", number or random.randrange(15000, 32000)))
            except OSError:
                holder.close()
                if number:
                    raise
                continue
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._holder = holder
            self.number: int = holder.getsockname()[1]
            return
        raise AssertionError("found no free port")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.number}"

    def release(self) -> None:
        self._holder.close()


# --- the client side --------------------------------------------------------------------------


class Closed(Exception):
    """The other side closed the connection."""


def request(method: str, params: Any = None, id: Any = 0) -> dict[str, Any]:
    """A JSON-RPC request; without `params` when they are None."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
    if params is not None:
        message["params"] = params
    return message


def apply_request(value: Any, kind: str = "Command", id: Any = 0) -> dict[str, Any]:
    return request("Apply", {"kind": kind, "input": value}, id)


class Connection:
    """One client connection, JSON Lines in both directions."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout * PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send_bytes(self, data: bytes) -> None:
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error

    def send(self, *messages: Any) -> None:
        """Send each message as a line, all of them in one write."""
        self.send_bytes(b"".join(json.dumps(m).encode() + b"\n" for m in messages))

    def receive_line(self, timeout: float = ANSWER_SECONDS) -> bytes:
        """The next line without its LF. Closed at the end, TimeoutError past `timeout`."""
        end = time.monotonic() + timeout
        while True:
            at = self._received.find(b"\n")
            if at >= 0:
                line = bytes(self._received[:at])
                del self._received[: at + 1]
                return line
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no line within {timeout} s")
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("end of stream")
            self._received += piece

    def receive(self, timeout: float = ANSWER_SECONDS) -> Any:
        return json.loads(self.receive_line(timeout))

    def call(self, method: str, params: Any = None, timeout: float = ANSWER_SECONDS) -> Any:
        """Send one request and return its whole response."""
        self.send(request(method, params))
        return self.receive(timeout)

    def apply(self, value: Any, kind: str = "Command") -> Any:
        return self.call("Apply", {"kind": kind, "input": value})

    def is_silent(self, seconds: float) -> bool:
        """True when nothing comes, not even the end, for that long."""
        try:
            self.receive_line(seconds)
        except TimeoutError:
            return True
        except Closed:
            return False
        return False


def code_of(response: Any) -> int | None:
    """The error code of a response, None for a result."""
    return response["error"]["code"] if "error" in response else None


def result_of(response: Any) -> Any:
    assert "result" in response, f"an error where a result was expected: {response}"
    return response["result"]


# --- the server side --------------------------------------------------------------------------


class Member:
    """One server process; `address` and `data` stay the same over its restarts."""

    def __init__(
        self,
        name: str,
        port: Port,
        log: Path,
        data: Path | None,
        command: Iterable[str],
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.address = port.address
        self.log = log
        self.data = data
        self.command = [*command, self.address, *([str(data)] if data else [])]
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.expected_to_run = False

    def __repr__(self) -> str:
        return f"<{self.name} {self.address}>"

    # -- life --

    def start(self) -> None:
        assert self.process is None, f"{self} is running already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,  # not the source tree: the installed package is tested
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONFAULTHANDLER": "1",
                    **self.environment,
                },
            )
        self.expected_to_run = True

    def wait_ready(self, deadline: float = 30.0) -> None:
        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(
                    f"{self} ended with {self.process.returncode}:\n{self.tail()}"
                )
            try:
                return "result" in self.rpc("GetServerState", timeout=1.0)
            except (OSError, Closed):
                return False

        wait_for(f"{self} answers", answers, deadline)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self._end(signal.SIGKILL)

    def terminate(self, deadline: float = 30.0) -> int:
        """SIGTERM: a graceful stop. Returns the exit code."""
        return self._end(signal.SIGTERM, deadline)

    def restart(self) -> None:
        if self.process is not None:
            self.kill()
        self.start()
        self.wait_ready()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_exit(self, deadline: float = 30.0) -> int:
        """Wait for a process that ends by itself, as it is meant to."""
        assert self.process is not None
        self.expected_to_run = False
        code = self.process.wait(deadline * PATIENCE)
        self.process = None
        return code

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _end(self, number: int, deadline: float = 30.0) -> int:
        assert self.process is not None and self.process.poll() is None, f"{self} has died"
        self._signal(number)
        return self.wait_exit(deadline)

    def destroy(self) -> None:
        """Whatever state it is in: no process afterwards."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()  # a stopped process dies of SIGKILL as well
            self.process.wait()
        self.port.release()

    def fault(self) -> str | None:
        """What went wrong with the process by itself, or None."""
        if self.expected_to_run and not self.running:
            assert self.process is not None
            return f"{self} died by itself: exit code {self.process.returncode}"
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        for fault in FAULTS:
            if fault in text:
                return f"{self} reported {fault!r}"
        return None

    def tail(self, lines: int = 60) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_says(self, text: str) -> None:
        """Until its log has the text; a running member's comes a moment after the event."""
        wait_for(f"{self} says {text!r}", lambda: text in self.tail())

    # -- requests --

    def connect(self, timeout: float = 10.0) -> Connection:
        return Connection(self.address, timeout)

    def rpc(self, method: str, params: Any = None, timeout: float = ANSWER_SECONDS) -> Any:
        """One request on a connection of its own; the whole response."""
        with self.connect(min(timeout, 10.0)) as connection:
            return connection.call(method, params, timeout)

    def result(self, method: str, params: Any = None, timeout: float = ANSWER_SECONDS) -> Any:
        return result_of(self.rpc(method, params, timeout))

    def apply(self, value: Any, kind: str = "Command", timeout: float = ANSWER_SECONDS) -> Any:
        """The whole response to an Apply."""
        return self.rpc("Apply", {"kind": kind, "input": value}, timeout)

    def state(self, user: bool = False, timeout: float = 10.0) -> dict[str, Any]:
        params = {"user": True} if user else None
        state: dict[str, Any] = self.result("GetServerState", params, timeout * PATIENCE)
        return state

    @property
    def members(self) -> list[str]:
        """The addresses of the cluster as this member knows them."""
        members = self.state()["machines"]["system"]["members"]
        if isinstance(members, dict):
            members = list(members.values())
        return [m["addr"] if isinstance(m, dict) else m for m in members]

    # -- files --

    def log_lines(self) -> dict[int, bytes]:
        """Index to line, over all segments; blank lines (filled ahead) are not entries."""
        assert self.data is not None
        lines: dict[int, bytes] = {}
        for segment in sorted(self.data.glob("log-*.jsonl")):
            for line in segment.read_bytes().split(b"\n"):
                if not line.strip():
                    continue
                found = re.match(rb'\{"index":(\d+),', line)
                assert found, f"{segment}: not an entry: {line[:200]!r}"
                index = int(found[1])
                assert index not in lines, f"{segment}: index {index} twice"
                lines[index] = line
        return lines


class Cluster:
    """Several members, started together and cleaned up together."""

    def __init__(
        self,
        directory: Path,
        n: int = 3,
        *,
        durable: bool = True,
        command: Iterable[str] = KVS,
        environment: dict[str, str] | None = None,
        ports: Iterable[int] = (),
    ) -> None:
        self.directory = directory
        self.durable = durable
        self.command = list(command)
        self.environment = environment
        self.all: list[Member] = []
        directory.mkdir(parents=True, exist_ok=True)
        try:
            numbers = iter(ports)
            for _ in range(n):
                self._new_member(next(numbers, None)).start()
            for member in self.all:
                member.wait_ready()
        except BaseException:
            self.destroy()
            raise

    def __getitem__(self, at: int) -> Member:
        return self.all[at]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.all)

    # -- life --

    def _new_member(self, port: int | None = None) -> Member:
        name = f"n{len(self.all) + 1}"
        member = Member(
            name,
            Port(port),
            self.directory / f"{name}.log",
            self.directory / name if self.durable else None,
            self.command,
            self.environment,
        )
        self.all.append(member)
        return member

    def new_member(self) -> Member:
        """One more process, which belongs to no cluster yet."""
        member = self._new_member()
        member.start()
        member.wait_ready()
        return member

    def create(self, min_ms: int | None = None, max_ms: int | None = None) -> None:
        """CreateCluster on the first member, AddServer for the others."""
        params = {}
        if min_ms is not None:
            params["min_election_timeout_ms"] = min_ms
        if max_ms is not None:
            params["max_election_timeout_ms"] = max_ms
        created = self.all[0].result("CreateCluster", params or None)
        assert created == {"members": [self.all[0].address]}
        for at, member in enumerate(self.all[1:], 2):
            added = self.all[0].result("AddServer", {"addr": member.address})
            assert added == {"members": [m.address for m in self.all[:at]]}

    def add(self) -> Member:
        """A new process, added to the cluster."""
        leader = self.wait_leader()
        member = self.new_member()
        members = leader.result("AddServer", {"addr": member.address})["members"]
        assert members[-1] == member.address
        return member

    def destroy(self) -> None:
        for member in self.all:
            member.destroy()

    def close(self) -> None:
        """End everything; fails when a member had died or reported a fault by itself."""
        faults = [fault for member in self.all if (fault := member.fault())]
        self.destroy()
        assert not faults, faults

    # -- conditions --

    @property
    def running(self) -> list[Member]:
        return [m for m in self.all if m.running]

    def find(self, address: str) -> Member:
        return next(m for m in self.all if m.address == address)

    def others(self, *but: Member) -> list[Member]:
        return [m for m in self.running if m not in but]

    def states(self, members: Iterable[Member] | None = None) -> dict[Member, dict[str, Any]]:
        """The states of the members that answer."""
        states = {}
        for member in self.running if members is None else members:
            with contextlib.suppress(OSError, Closed):
                states[member] = member.state(timeout=2.0)
        return states

    def wait_leader(
        self, among: Iterable[Member] | None = None, deadline: float = 30.0
    ) -> Member:
        """The member that leads the newest term and that a majority of those asked agrees on.

        Only the members in `among` (default: all that run) are asked; it must be one of them.
        """
        asked = list(self.running if among is None else among)

        def leader() -> Member | None:
            states = self.states(asked)
            if not states:
                return None
            term = max(s["current_term"] for s in states.values())
            for member, state in states.items():
                if state["role"] == "Leader" and state["current_term"] == term:
                    agree = [s for s in states.values() if s["leader"] == member.address]
                    if 2 * len(agree) > len(asked):
                        return member
            return None

        return wait_for("a leader that a majority agrees on", leader, deadline)

    def command_until_done(self, value: Any, member: Member | None = None) -> Any:
        """The output of a command; sent again where it was certainly not applied."""

        def done() -> list[Any] | None:
            response = (member or self.running[0]).apply(value)
            if code_of(response) in (106, 108, 110):
                return None
            return [result_of(response)]

        return wait_for(f"a command goes through: {value}", done)[0]

    def put(self, key: str, value: Any, member: Member | None = None) -> Any:
        return self.command_until_done({"Put": {"key": key, "value": value}}, member)

    def wait_converged(
        self, members: Iterable[Member] | None = None, deadline: float = 60.0
    ) -> dict[str, Any]:
        """All have applied the same index, all of the log, and hold the same state.

        Returns the state (with the user's machine) of the first.
        """
        members = list(self.running if members is None else members)
        last: dict[str, Any] = {}

        def same() -> dict[str, Any] | None:
            last.clear()
            states = self.states(members)
            last.update({str(m): s for m, s in states.items()})
            if len(states) < len(members):
                return None
            indexes = {
                s[name]
                for s in states.values()
                for name in ("applied_index", "commit_index", "last_log_index")
            }
            if len(indexes) != 1:
                return None
            full = [m.state(user=True, timeout=60.0) for m in members]
            if {s["applied_index"] for s in full} != indexes:
                return None
            for other in full[1:]:
                assert other["machines"]["user"] == full[0]["machines"]["user"]
            return full[0]

        try:
            return wait_for("all members have applied the same", same, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(last, indent=1)}") from None

    def assert_logs_identical(self, members: Iterable[Member] | None = None) -> int:
        """Over the indexes that all have, the lines are the same bytes; returns how many."""
        members = list(self.running if members is None else members)
        logs = [m.log_lines() for m in members]
        common = sorted(set.intersection(*(set(log) for log in logs)))
        assert common, "the logs have no index in common"
        assert common == list(range(common[0], common[-1] + 1)), "a gap in the logs"
        for member, log in zip(members[1:], logs[1:], strict=True):
            for index in common:
                assert log[index] == logs[0][index], (
                    f"index {index} differs:\n{members[0]}: {logs[0][index][:300]!r}\n"
                    f"{member}: {log[index][:300]!r}"
                )
        return len(common)


def processes_of_run(run: str) -> list[int]:
    """Processes that a test run started and that are still there (where /proc tells)."""
    left = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if f"{RUN_VARIABLE}={run}".encode() in environment and state != "Z":
            left.append(int(entry.name))
    return [pid for pid in left if pid != os.getpid()]
