"""A cluster that loses its leader and goes on: python -m raftpico.demo

Three members as processes on this machine; nothing is left of them afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raftpico import Client, RaftpicoError
from raftpico.types import ApplyKind

T = TypeVar("T")

FRUIT = {"apple": 1, "banana": 2, "cherry": 3, "damson": 4, "elder": 5}
LATER = {"fig": 6, "grape": 7}

READY_SECONDS = 20.0
ELECTION_SECONDS = 30.0
CATCH_UP_SECONDS = 30.0
STOP_SECONDS = 10.0

DEAD = "dead"

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failure(Exception):
    """Something did not hold; the text says what."""


# --- drawing ----------------------------------------------------------------------------------


class Screen:
    """Plain text, with colours where the output is a terminal that has them."""

    def __init__(self) -> None:
        out = sys.stdout
        encoding = (out.encoding or "").lower()
        self.colours = out.isatty() and "NO_COLOR" not in os.environ
        self.unicode = encoding.startswith("utf")
        self.step_number = 0

    def paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def step(self, text: str) -> None:
        self.step_number += 1
        self.say()
        self.say(self.paint(f"{self.step_number}. {text}", "1"))

    def command(self, text: str) -> None:
        self.say(self.paint(f"   $ {text}", "2"))

    def good(self, text: str) -> None:
        mark = "✓" if self.unicode else "ok"
        self.say(f"   {self.paint(mark, '32')} {text}")

    def bad(self, text: str) -> None:
        mark = "✗" if self.unicode else "FAILED"
        self.say(f"   {self.paint(mark, '31')} {text}")

    def members(self, members: Sequence[Member]) -> None:
        """A box for each member, side by side."""
        horizontal, vertical, corners = (
            ("─", "│", "┌┐└┘") if self.unicode else ("-", "|", "++++")
        )
        width = 19
        rows: list[list[str]] = [[], [], [], [], [], []]
        for member in members:
            state = member.peek()
            role = DEAD if state is None else state["role"]
            colour = {"Leader": "1;32", DEAD: "31"}.get(role, "36")
            crown = {"Leader": "★ " if self.unicode else "* "}.get(role, "")
            lines = [
                f"{member.name}  {member.address}",
                f"{crown}{role.upper()}",
                f"term {state['current_term']}" if state else "",
                f"applied {state['applied_index']}" if state else "",
            ]
            paint = [None, colour, None, None]
            rows[0].append(corners[0] + horizontal * (width + 2) + corners[1])
            for row, (line, code) in enumerate(zip(lines, paint, strict=True), 1):
                text = line.ljust(width)
                text = self.paint(text, code) if code else text
                rows[row].append(f"{vertical} {text} {vertical}")
            rows[5].append(corners[2] + horizontal * (width + 2) + corners[3])
        for cells in rows:
            self.say("   " + "  ".join(cells))


# --- members ----------------------------------------------------------------------------------


class Member:
    """One process of `python -m raftpico.kvs`."""

    def __init__(self, name: str, port: Port, folder: Path) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port.number}"
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "raftpico.kvs", self.address, str(self.data)]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the members
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )
        wait_for(f"{self.name} to answer", self._is_ready, READY_SECONDS)

    def _is_ready(self) -> bool:
        if not self.is_alive():
            text = self.log.read_text(errors="replace").strip()
            raise Failure(f"{self.name} did not start:\n{text}")
        return self.peek() is not None

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def peek(self) -> dict[str, Any] | None:
        """Its state; None when it is dead or does not answer."""
        if not self.is_alive():
            return None
        try:
            with Client(self.address, timeout=2.0) as client:
                return client.server_state()
        except RaftpicoError:
            return None

    def read_all(self, keys: Sequence[str], kind: ApplyKind) -> dict[str, Any]:
        with Client(self.address) as client:
            return {key: client.apply({"Get": {"key": key}}, kind) for key in keys}

    def kill(self) -> None:
        """SIGKILL: no goodbye, as when the machine loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL when that does not help; the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


class Port:
    """A port that the system chose, held so that nobody else is given it.

    A socket that is bound and does not listen keeps the port from being handed out; with
    SO_REUSEADDR, which servers set, another one may listen beside it on Linux. Elsewhere the
    port is let go at once.
    """

    def __init__(self) -> None:
        self.holder = socket.socket()
        self.holder.bind(("127.0.0.1", 0))
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.number: int = self.holder.getsockname()[1]

    def close(self) -> None:
        self.holder.close()


def die_with_parent() -> None:
    """In a child on Linux: be killed when the demo is, even by SIGKILL."""
    prctl_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(prctl_set_pdeathsig, signal.SIGKILL)


def wait_for(what: str, condition: Callable[[], T | None], seconds: float) -> T:
    """Poll until the condition holds. Raises Failure past the time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s for {what} in vain")
        time.sleep(0.01)


@contextlib.contextmanager
def three_members() -> Iterator[list[Member]]:
    """Members that are started by nobody yet; no process and no file is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="raftpico-demo-"))
    ports = [Port() for _ in range(3)]
    members = [Member(name, port, folder) for name, port in zip("ABC", ports, strict=True)]
    if sys.platform != "linux":
        for port in ports:
            port.close()
    try:
        yield members
    finally:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)  # nothing interrupts the clearing up
        for member in members:
            if member.is_alive() and member.process is not None:
                member.process.send_signal(signal.SIGTERM)
        for member in members:
            member.stop()
        for port in ports:
            port.close()
        shutil.rmtree(folder, ignore_errors=True)


def find_leader(members: Sequence[Member], not_this: Member | None = None) -> Member | None:
    """The member that says it leads, if a majority of all says so too."""
    states = {m: state for m in members if (state := m.peek()) is not None}
    for member, state in states.items():
        agreeing = sum(other["leader"] == member.address for other in states.values())
        if state["role"] == "Leader" and member is not not_this and agreeing * 2 > len(members):
            return member
    return None


# --- the story --------------------------------------------------------------------------------


def check(screen: Screen, text: str, found: Any, expected: Any) -> None:
    """Say that it held, or raise."""
    if found != expected:
        raise Failure(f"{text}: expected {expected!r}, found {found!r}")
    screen.good(text)


def start_members(screen: Screen, members: Sequence[Member]) -> None:
    screen.step("Start three servers: processes of their own, each with a data directory")
    for member in members:
        screen.command(f"python -m raftpico.kvs {member.address} {member.data} &")
    for member in members:
        member.start()
    screen.good("all three answer")


def create_cluster(screen: Screen, members: Sequence[Member]) -> None:
    first, *others = members
    screen.step(f"Make them one cluster: {first.name} creates it, the others are added")
    with Client(first.address) as client:
        joined = client.create_cluster()
        for member in others:
            joined = client.add_server(member.address)
    check(screen, "the members are A, B and C", joined, [m.address for m in members])
    wait_for("a leader", lambda: find_leader(members), ELECTION_SECONDS)
    screen.members(members)


def write_and_read(screen: Screen, members: Sequence[Member]) -> None:
    screen.step("Write five keys through A, read them from every member")
    with Client(members[0].address) as client:
        for key, value in FRUIT.items():
            client.command({"Put": {"key": key, "value": value}})
    screen.good(f"written: {FRUIT}")
    for member in members:
        found = member.read_all(list(FRUIT), ApplyKind.QUERY)
        check(screen, f"{member.name} reads all five", found, FRUIT)


def kill_leader(screen: Screen, members: Sequence[Member]) -> Member:
    leader = wait_for("a leader", lambda: find_leader(members), ELECTION_SECONDS)
    screen.step(f"Kill the leader, {leader.name}, with SIGKILL, as a power cut would")
    assert leader.process is not None
    screen.command(f"kill -9 {leader.process.pid}")
    others = [member for member in members if member is not leader]
    leader.kill()
    start = time.monotonic()
    successor = wait_for(
        "another leader", lambda: find_leader(members, leader), ELECTION_SECONDS
    )
    elected = time.monotonic() - start
    with Client(*(member.address for member in others)) as client:
        for key, value in LATER.items():
            client.command({"Put": {"key": key, "value": value}})
    written = time.monotonic() - start
    screen.good(f"{successor.name} took over after {elected:.2f} s")
    screen.good(f"and the cluster took new writes {written:.2f} s after the kill: {LATER}")
    screen.members(members)
    return leader


def read_back(screen: Screen, members: Sequence[Member]) -> None:
    screen.step("Read everything back from those that are left")
    everything = FRUIT | LATER
    for member in members:
        if member.is_alive():
            found = member.read_all(list(everything), ApplyKind.QUERY)
            check(screen, f"{member.name} has all seven: nothing was lost", found, everything)


def bring_back(screen: Screen, members: Sequence[Member], dead: Member) -> None:
    screen.step(f"Bring {dead.name} back")
    screen.command(f"python -m raftpico.kvs {dead.address} {dead.data} &")
    start = time.monotonic()
    dead.start()
    leader = wait_for("a leader", lambda: find_leader(members), ELECTION_SECONDS)
    target = (leader.peek() or {}).get("commit_index", 0)

    def caught_up() -> bool:
        state = dead.peek()
        return state is not None and state["applied_index"] >= target

    wait_for(f"{dead.name} to catch up", caught_up, CATCH_UP_SECONDS)
    screen.good(f"{dead.name} caught up {time.monotonic() - start:.2f} s after its start")
    everything = FRUIT | LATER
    found = dead.read_all(list(everything), ApplyKind.LOCAL_QUERY)
    text = f"{dead.name} itself has all seven, also what was written while it was dead"
    check(screen, text, found, everything)
    screen.members(members)


def keep_running(screen: Screen, members: Sequence[Member]) -> None:
    """Leave the cluster to the reader until Ctrl-C."""
    a, b, _ = (member.address for member in members)
    host, _, port = b.rpartition(":")
    put = '{"kind":"Command","input":{"Put":{"key":"foo","value":1}}}'
    get = '{"kind":"Query","input":{"Get":{"key":"foo"}}}'
    line = f'{{"jsonrpc":"2.0","id":1,"method":"Apply","params":{get}}}'
    screen.step("The cluster goes on running until Ctrl-C. In another terminal:")
    screen.command(f"jlot req Apply --params '{put}' | jlot call {a}")
    screen.command(f"jlot req Apply --params '{get}' | jlot call {b}")
    screen.command(f"echo '{line}' | nc -N {host} {port}")
    for member in members:
        assert member.process is not None
        screen.command(
            f"kill -9 {member.process.pid}   # {member.name}; its log is {member.log}"
        )
    while True:
        time.sleep(1)


def tell(screen: Screen, keep: bool) -> None:
    """The whole story. Raises Failure where something does not hold."""
    with three_members() as members:
        start_members(screen, members)
        create_cluster(screen, members)
        write_and_read(screen, members)
        dead = kill_leader(screen, members)
        read_back(screen, members)
        bring_back(screen, members, dead)
        screen.say()
        screen.say(screen.paint("All of it held.", "1;32"))
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                keep_running(screen, members)
            return
        screen.step("Stop all three, gracefully")
        codes = [member.stop() for member in members]
        check(screen, "each ended with exit status 0", codes, [0, 0, 0])


def interrupt(number: int, frame: object) -> None:
    """All of them end the demo in the same way: nothing is left behind."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status: 0 only if all of it held."""
    parser = argparse.ArgumentParser(
        prog="python -m raftpico.demo",
        description="Start a cluster of three on this machine, kill its leader, and see that "
        "nothing is lost. Takes a few seconds; leaves nothing behind.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the cluster running until Ctrl-C"
    )
    keep = parser.parse_args(arguments).keep
    for number in ENDINGS:
        signal.signal(number, interrupt)
    screen = Screen()
    try:
        screen.say("raftpico: three members keep the same state; one may die at any time.")
        tell(screen, keep)
    except (Failure, RaftpicoError, OSError) as error:
        screen.bad(str(error))
        return 1
    except KeyboardInterrupt:
        screen.say()
        screen.say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
