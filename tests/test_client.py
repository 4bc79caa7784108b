"""The client against a server that does what a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import raftpico
from raftpico import ApplyKind, Client

Handler = Callable[[dict[str, Any]], object]

CLOSE = object()  # a handler's answer: close the connection
SILENCE = object()  # ... or say nothing
REFUSED = "127.0.0.1:1"  # nobody listens there


def error(code: int, **data: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"error {code}", "data": data}}


class Fake:
    """Listens; `handler` is given each request and answers a result, an error or bytes."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.requests.append(request)
                    if not self._answer(connection, request):
                        connection.shutdown(socket.SHUT_RDWR)
                        return
        except (OSError, ValueError):
            return

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> bool:
        answer = self.handler(request)
        if answer is CLOSE:
            return False
        if isinstance(answer, bytes):
            connection.sendall(answer)
        elif answer is not SILENCE:
            body = (
                answer if isinstance(answer, dict) and "error" in answer else {"result": answer}
            )
            response = {"jsonrpc": "2.0", "id": request["id"], **body}
            connection.sendall(json.dumps(response).encode() + b"\n")
        return True


@pytest.fixture
def fake() -> Iterator[Callable[[Handler], Fake]]:
    fakes: list[Fake] = []

    def make(handler: Handler) -> Fake:
        fakes.append(Fake(handler))
        return fakes[-1]

    yield make
    for one in fakes:
        one.close()


MakeFake = Callable[[Handler], Fake]


def in_turn(*answers: object) -> Handler:
    """The answers one after the other; the last one stays."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


# --- the methods ------------------------------------------------------------------------------


def test_every_method(fake: MakeFake) -> None:
    results = {
        "CreateCluster": {"members": ["a:1"]},
        "AddServer": {"members": ["a:1", "b:2"]},
        "RemoveServer": {"members": ["a:1"]},
        "TakeSnapshot": {"snapshot_index": 7},
        "GetServerState": {"role": "Leader"},
        "Apply": {"out": [0.1, 2**70, "\udc80"]},
    }
    server = fake(lambda request: results[request["method"]])
    with Client(server.address) as client:
        assert client.create_cluster() == ["a:1"]
        assert client.create_cluster(100, 200) == ["a:1"]
        assert client.add_server(":4001") == ["a:1", "b:2"]
        assert client.remove_server("b:2") == ["a:1"]
        assert client.take_snapshot() == 7
        assert client.server_state() == {"role": "Leader"}
        assert client.server_state(user=True) == {"role": "Leader"}
        assert client.command({"Put": [1, 2]}) == results["Apply"]
        assert client.query("List") == results["Apply"]
        assert client.local_query(None) == results["Apply"]
        assert client.apply(0.1, ApplyKind.QUERY) == results["Apply"]
    assert [(r["method"], r.get("params")) for r in server.requests] == [
        ("CreateCluster", None),
        ("CreateCluster", {"min_election_timeout_ms": 100, "max_election_timeout_ms": 200}),
        ("AddServer", {"addr": "127.0.0.1:4001"}),
        ("RemoveServer", {"addr": "b:2"}),
        ("TakeSnapshot", None),
        ("GetServerState", None),
        ("GetServerState", {"user": True}),
        ("Apply", {"kind": "Command", "input": {"Put": [1, 2]}}),
        ("Apply", {"kind": "Query", "input": "List"}),
        ("Apply", {"kind": "LocalQuery", "input": None}),
        ("Apply", {"kind": "Query", "input": 0.1}),
    ]
    assert server.connections == 1


def test_errors_are_raised(fake: MakeFake) -> None:
    server = fake(lambda _: error(109, type="KeyError", reason="'x'", outcome="applied"))
    with Client(server.address) as client:
        with pytest.raises(raftpico.MachineError, match="KeyError: 'x'") as raised:
            client.command(1)
        assert raised.value.outcome == "applied"
        with pytest.raises(ValueError, match="NaN"):
            client.command(float("nan"))
    assert len(server.requests) == 1


# --- what is tried again, and what is not -----------------------------------------------------


def test_not_applied_is_sent_again(fake: MakeFake) -> None:
    server = fake(
        in_turn(
            error(108, outcome="not_applied"),
            error(106, outcome="not_applied"),
            error(110, outcome="not_applied", retry_after_ms=150),
            "done",
        )
    )
    started = time.monotonic()
    with Client(server.address) as client:
        assert client.command(1) == "done"
    assert time.monotonic() - started >= 0.15
    assert len(server.requests) == 4


@pytest.mark.parametrize("code", [106, 108, 110])
def test_until_the_time_is_over(fake: MakeFake, code: int) -> None:
    server = fake(lambda _: error(code, outcome="not_applied"))
    started = time.monotonic()
    with (
        Client(server.address, timeout=0.3) as client,
        pytest.raises(raftpico.RequestError) as e,
    ):
        client.command(1)
    assert e.value.code == code
    assert time.monotonic() - started < 5
    assert len(server.requests) > 1


@pytest.mark.parametrize(
    "answer", [error(107, outcome="unknown"), error(108, outcome="unknown")]
)
def test_unknown_is_not_sent_again(fake: MakeFake, answer: object) -> None:
    server = fake(lambda _: answer)
    with Client(server.address) as client, pytest.raises(raftpico.RequestError):
        client.command(1)
    assert len(server.requests) == 1


def test_a_command_that_may_be_applied_is_not_sent_again(fake: MakeFake) -> None:
    first, second = fake(lambda _: CLOSE), fake(lambda _: "done")
    with Client(first.address, second.address) as client:
        with pytest.raises(raftpico.ConnectionFailed) as raised:
            client.command(1)
        assert raised.value.outcome == "unknown"
        assert client.command(2) == "done"
    assert [len(first.requests), len(second.requests)] == [1, 1]


def test_a_query_is_sent_again(fake: MakeFake) -> None:
    first, second = fake(lambda _: CLOSE), fake(lambda _: "done")
    with Client(first.address, second.address) as client:
        assert client.query(1) == "done"
        assert client.address == second.address
    with Client(first.address) as client, pytest.raises(raftpico.ConnectionFailed):
        client.query(1)


def test_another_member_is_asked_where_one_knows_no_leader(fake: MakeFake) -> None:
    first = fake(lambda _: error(108, outcome="not_applied"))
    second = fake(lambda _: "done")
    with Client(first.address, second.address) as client:
        assert client.command(1) == "done"
    assert len(first.requests) == 1


# --- connections ------------------------------------------------------------------------------


def test_addresses_are_tried_in_turn(fake: MakeFake) -> None:
    server = fake(lambda _: "done")
    with Client(REFUSED, f":{server.port}") as client:
        assert client.command(1) == "done"
        assert client.command(2) == "done"
    assert server.connections == 1


def test_nobody_answers() -> None:
    with (
        Client(REFUSED) as client,
        pytest.raises(raftpico.ConnectionFailed, match=REFUSED) as e,
    ):
        client.command(1)
    assert e.value.outcome == "not_applied"


def test_a_connection_that_was_closed_meanwhile_is_opened_again(fake: MakeFake) -> None:
    server = fake(lambda _: "done")
    with Client(server.address) as client:
        assert client.command(1) == "done"
        for connection in server._open:
            connection.shutdown(socket.SHUT_RDWR)
        time.sleep(0.05)
        assert client.command(2) == "done"
    assert server.connections == 2


def test_an_answer_that_comes_too_late_is_nobody_elses(fake: MakeFake) -> None:
    def slow(request: dict[str, Any]) -> object:
        if request["params"]["input"] == "slow":
            time.sleep(0.5)
        return request["params"]["input"]

    server = fake(slow)
    with Client(server.address) as client:
        with pytest.raises(raftpico.RequestTimeout) as raised:
            client.command("slow", timeout=0.1)
        assert raised.value.outcome == "unknown"
        assert client.command("quick") == "quick"


def test_an_answer_in_pieces(fake: MakeFake) -> None:
    big = "x" * 3_000_000
    server = fake(lambda _: big)
    with Client(server.address) as client:
        assert client.query(1) == big
        assert client.query(2) == big


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n", b"[]\n", b'"x"\n', b"\xff\n"])
def test_an_answer_that_is_none(fake: MakeFake, answer: bytes) -> None:
    server = fake(lambda _: answer)
    with Client(server.address) as client, pytest.raises(raftpico.RaftpicoError):
        client.query(1)


def test_several_threads(fake: MakeFake) -> None:
    server = fake(lambda request: request["params"]["input"])
    client = Client(server.address)
    wrong: list[object] = []

    def work(worker: int) -> None:
        for number in range(50):
            answer = client.command([worker, number])
            if answer != [worker, number]:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert wrong == []
    assert len(server.requests) == 300
    assert server.connections == 1


def test_a_closed_client() -> None:
    client = Client(REFUSED)
    client.close()
    client.close()
    with pytest.raises(raftpico.ConnectionFailed, match="closed"):
        client.query(1)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="address"):
        Client()
    with pytest.raises(ValueError, match="no address"):
        Client("here")
    with pytest.raises(ValueError, match="timeout"):
        Client(REFUSED, timeout=0)
    with Client(REFUSED) as client, pytest.raises(ValueError, match="Nonsense"):
        client.apply(1, "Nonsense")  # type: ignore[arg-type]
