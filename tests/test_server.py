"""raftpico.Server in the process of the tests: its life, its properties, its requests."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import PATIENCE, wait_for

import raftpico
from raftpico import ApplyKind, Server
from raftpico.kvs import KeyValueStore

ANY = "127.0.0.1:0"


class Echo(raftpico.Machine):
    """Counts its commands; does what a test asks for."""

    commands = frozenset({"count"})

    def __init__(self) -> None:
        self.count = 0
        self.thread = ""

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        self.thread = threading.current_thread().name
        if input == "count":
            self.count += 1
            return self.count
        if input == "raise":
            raise KeyError("no such thing")
        if isinstance(input, dict) and "sleep" in input:
            time.sleep(input["sleep"])
        return input


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Echo(), ANY) as one:
        one.create_cluster()
        yield one


# --- life -------------------------------------------------------------------------------------


def test_with(server: Server) -> None:
    assert server.addr.startswith("127.0.0.1:") and not server.addr.endswith(":0")
    wait_for("it leads", lambda: server.role == "Leader")
    assert server.members == [server.addr]
    assert server.leader == server.addr
    assert server.term >= 1
    before = server.commit_index
    assert server.command("count") == 1
    wait_for("the index is seen", lambda: server.commit_index > before)
    assert server.server_state()["addr"] == server.addr
    assert server.addr in repr(server)


def test_before_it_runs_and_after() -> None:
    server = Server(Echo(), ANY)
    assert server.members == []
    assert server.leader is None
    with pytest.raises(RuntimeError, match="start"):
        server.query(1)
    server.start()
    with pytest.raises(RuntimeError, match="already"):
        server.start()
    with pytest.raises(RuntimeError, match="already"):
        server.run()
    server.stop()
    server.stop()
    with pytest.raises(raftpico.ServerClosed):
        server.query(1)
    with pytest.raises(raftpico.ServerClosed):
        _ = server.role
    with pytest.raises(raftpico.ServerClosed):
        server.run()


def test_it_can_be_closed_without_having_run() -> None:
    server = Server(Echo(), ANY)
    address = server.addr
    server.stop()
    Server(Echo(), address).stop()  # the port is free again


def test_forgotten_servers_are_freed() -> None:
    server = Server(Echo(), ANY)
    address = server.addr
    with pytest.warns(ResourceWarning, match="unclosed"):
        del server
        gc.collect()
    Server(Echo(), address).stop()


def test_run_in_a_thread() -> None:
    server = Server(Echo(), ANY)
    thread = threading.Thread(target=server.run, name="mine")
    thread.start()
    wait_for("it runs", lambda: server._core.running)
    server.create_cluster()
    assert server.command(5) == 5
    assert server.machine.thread == "mine"  # type: ignore[attr-defined]
    server.stop()
    thread.join(10 * PATIENCE)
    assert not thread.is_alive()


def test_a_request_that_is_waiting_when_it_stops(server: Server) -> None:
    server.command("count")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            server.command({"sleep": 1})
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    server.stop()
    thread.join(10 * PATIENCE)
    assert not thread.is_alive()
    assert all(isinstance(error, raftpico.RaftpicoError) for error in raised)


# --- opening ----------------------------------------------------------------------------------


def test_what_cannot_be_opened(server: Server, tmp_path: Path) -> None:
    with pytest.raises(raftpico.InUse, match=server.addr):
        Server(Echo(), server.addr)
    with pytest.raises(ValueError, match="no address"):
        Server(Echo(), "here")
    with pytest.raises(ValueError, match="insecure"):
        Server(Echo(), "0.0.0.0:0")
    with pytest.raises(AttributeError, match="apply"):
        Server(object(), ANY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        Server(Echo(), ANY, seed=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(raftpico.ServerError):
        Server(Echo(), ANY, tmp_path / "file")


def test_a_directory_is_used_once(tmp_path: Path) -> None:
    with Server(Echo(), ANY, tmp_path / "data"), pytest.raises(raftpico.InUse):
        Server(Echo(), ANY, tmp_path / "data")


def test_state_survives(tmp_path: Path) -> None:
    with Server(KeyValueStore(), ANY, tmp_path) as first:
        first.create_cluster()
        first.command({"Put": {"key": "a", "value": [0.1, 2**70, "\ud800"]}})
        assert first.take_snapshot() > 0
        first.command({"Put": ["b", {"z": 1, "y": 2}]})
        address = first.addr
    with Server(KeyValueStore(), address, tmp_path) as again:
        wait_for("it leads", lambda: again.role == "Leader")
        assert again.query({"Get": "a"}) == [0.1, 2**70, "\ud800"]
        assert list(again.query({"Get": "b"})) == ["z", "y"]


# --- requests ---------------------------------------------------------------------------------


def test_requests(server: Server) -> None:
    for value in (None, 0.1, 2**70, "\u0000\ud800", {"b": 1, "a": [True]}):
        for kind in ApplyKind:
            assert server.apply(value, kind) == value
    assert server.command("count") == 1
    for ask in (server.query, server.local_query):
        with pytest.raises(raftpico.InvalidInput, match="command"):
            ask("count")
    with pytest.raises(raftpico.MachineError, match="no such thing") as raised:
        server.command("raise")
    assert raised.value.outcome == "applied"
    with pytest.raises(ValueError, match="NaN"):
        server.command(float("nan"))
    assert server.command("count") == 2
    assert server.server_state(user=True)["machines"]["user"]["count"] == 2
    with pytest.raises(raftpico.ClusterAlreadyCreated):
        server.create_cluster()


def test_a_request_from_apply_does_not_hang() -> None:
    class Selfish(raftpico.Machine):
        def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
            return one.query(input)

    one = Server(Selfish(), ANY)
    with one:
        one.create_cluster()
        with pytest.raises(raftpico.MachineError, match="from within apply"):
            one.command(1)


def test_time_outs(server: Server) -> None:
    server.command("count")
    with pytest.raises(raftpico.RequestTimeout) as raised:
        server.command({"sleep": 1}, timeout=0.2)
    assert raised.value.outcome == "unknown"
    assert server.command("count") == 2


def test_exceptions_are_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "raftpico"), pytest.raises(raftpico.MachineError):
        server.command("raise")
    assert "KeyError" in caplog.text
    assert "in apply" in caplog.text  # the traceback


def test_notices() -> None:
    notices: list[raftpico.Notice] = []
    with Server(Echo(), ANY, on_notice=notices.append) as server:
        server.create_cluster()
        server.command("count")
        wait_for("a notice", lambda: notices)
        assert all(isinstance(notice["text"], str) for notice in notices)


def test_a_restore_that_raises_stops_the_server(tmp_path: Path) -> None:
    class Amnesiac(Echo):
        def restore(self, state: Any) -> None:
            raise LookupError("cannot remember")

    with Server(Echo(), ANY, tmp_path) as first:
        first.create_cluster()
        first.command("count")
        first.take_snapshot()
        address = first.addr
    with pytest.raises(LookupError, match="cannot remember"):
        Server(Amnesiac(), address, tmp_path).run()


def test_a_restore_on_several_threads(tmp_path: Path) -> None:
    """Each piece comes once, whoever asks for it."""

    class Pieces(raftpico.Machine):
        def __init__(self) -> None:
            self.pieces: list[int] = []

        def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
            if ctx.kind is ApplyKind.COMMAND:
                self.pieces = list(range(input))
            return [len(self.pieces), sum(self.pieces)]

        def snapshot(self) -> Iterator[Any]:
            for piece in self.pieces:
                yield [piece, "x" * 50]

        def restore(self, state: Iterator[Any]) -> None:
            def take() -> None:
                for piece, _ in state:
                    self.pieces.append(piece)

            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    with Server(Pieces(), ANY, tmp_path) as first:
        first.create_cluster()
        expected = first.command(100_000)
        first.take_snapshot()
        address = first.addr
    with Server(Pieces(), address, tmp_path) as second:
        assert second.query(None) == expected


# --- signals and processes --------------------------------------------------------------------

PROGRAM = """
import sys, time, raftpico

class Slow(raftpico.Machine):
    def apply(self, ctx, input):
        print("applying", flush=True)
        time.sleep(input)
        return input

server = raftpico.Server(Slow(), "127.0.0.1:0")
print(server.addr, flush=True)
server.run()
print("returned", flush=True)
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_gracefully(
    program: subprocess.Popen[str], number: signal.Signals
) -> None:
    with raftpico.Client(first_line(program)) as client:
        client.create_cluster()
        client.command(0)
    program.send_signal(number)
    output, _ = program.communicate(timeout=20 * PATIENCE)
    assert (output, program.returncode) == ("applying\nreturned\n", 0)


def test_a_second_signal_stops_it_at_once(program: subprocess.Popen[str]) -> None:
    with raftpico.Client(first_line(program)) as client:
        client.create_cluster()
        with pytest.raises(raftpico.RequestTimeout):
            client.command(60, timeout=1.0 * PATIENCE)
    program.send_signal(signal.SIGINT)
    time.sleep(0.3)
    program.send_signal(signal.SIGINT)
    output, _ = program.communicate(timeout=20 * PATIENCE)
    assert output == "applying\n"
    assert program.returncode != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_leaves_it_alone(server: Server) -> None:
    server.command("count")
    child = os.fork()
    if child == 0:
        try:
            server.query(1)
        except raftpico.ServerClosed:
            server._core.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert server.command("count") == 2


class Forking(Echo):
    """A machine whose "fork" returns twice."""

    child = 0

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        if input == "fork":
            self.child = os.fork()
        return os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_apply_forked_off_leaves_it_alone() -> None:
    """It has the sockets, and the loop went along: nobody may hear from it."""
    machine = Forking()
    with Server(machine, ANY) as server, raftpico.Client(server.addr) as client:
        client.create_cluster()
        client.command("fork")
        try:
            assert {client.command(0) for _ in range(100)} == {os.getpid()}
            wait_for("it ends", lambda: os.waitpid(machine.child, os.WNOHANG)[0] != 0)
        except BaseException:
            os.kill(machine.child, signal.SIGKILL)
            os.waitpid(machine.child, 0)
            raise
