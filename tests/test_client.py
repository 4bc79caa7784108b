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
from raftpico import Answer, ApplyKind, Client

Handler = Callable[[dict[str, Any]], object]

CLOSE = object()  # a handler's answer: close the connection
SILENCE = object()  # ... or say nothing
REFUSED = "127.0.0.1:1"  # nobody listens there


def error(code: int, **data: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"error {code}", "data": data}}


def is_error(answer: object) -> bool:
    return isinstance(answer, dict) and "error" in answer


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
            if "params" in request and "index" in request["params"] and not is_error(answer):
                answer = {"index": len(self.requests), "output": answer}
            body = answer if is_error(answer) else {"result": answer}
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
    with Client(server.address, sessions=False) as client:
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
        assert client.command(1, index=True) == Answer(results["Apply"], 12)
        assert client.query(1, min_index=5) == results["Apply"]
        assert client.local_query(1, min_index=0, max_staleness_ms=7) == results["Apply"]
    assert [(r["method"], r.get("params")) for r in server.requests] == [
        ("CreateCluster", None),
        ("CreateCluster", {"min_election_timeout_ms": 100, "max_election_timeout_ms": 200}),
        ("AddServer", {"addr": "127.0.0.1:4001"}),
        ("RemoveServer", {"addr": "b:2"}),
        ("TakeSnapshot", None),
        ("GetServerState", None),
        ("GetServerState", {"user": True}),
        ("Apply", {"kind": "Command", "input": {"Put": [1, 2]}, "index": True}),
        ("Apply", {"kind": "Query", "input": "List", "index": True}),
        ("Apply", {"kind": "LocalQuery", "input": None, "index": True, "min_index": 9}),
        ("Apply", {"kind": "Query", "input": 0.1, "index": True}),
        ("Apply", {"kind": "Command", "input": 1, "index": True}),
        ("Apply", {"kind": "Query", "input": 1, "index": True, "min_index": 5}),
        (
            "Apply",
            {
                "kind": "LocalQuery",
                "input": 1,
                "index": True,
                "min_index": 0,
                "max_staleness_ms": 7,
            },
        ),
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
    with (
        Client(server.address, sessions=False) as client,
        pytest.raises(raftpico.RequestError),
    ):
        client.command(1)
    assert len(server.requests) == 1


def test_a_command_that_may_be_applied_is_not_sent_again(fake: MakeFake) -> None:
    first, second = fake(lambda _: CLOSE), fake(lambda _: "done")
    with Client(first.address, second.address, sessions=False) as client:
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


# --- sessions ---------------------------------------------------------------------------------


def sessions_of(*servers: Fake) -> list[tuple[str, int]]:
    """The session and number of each request, in the order in which each server got them."""
    params = [request["params"] for server in servers for request in server.requests]
    return [(one["session"], one["seq"]) for one in params]


@pytest.mark.parametrize("loss", [CLOSE, error(107, outcome="unknown")])
def test_in_a_session_a_lost_command_is_sent_again(fake: MakeFake, loss: object) -> None:
    first, second = fake(in_turn(loss, "done")), fake(in_turn("done", loss, "done"))
    with Client(first.address, second.address) as client:
        for number in range(3):
            assert client.command(number) == "done"
    sent = sessions_of(first, second)
    assert len({name for name, _ in sent}) == 1
    assert [seq for _, seq in sent] == [1, 2, 3, 1, 2]


def test_a_silent_member_is_given_up_for_another(
    fake: MakeFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raftpico.client, "FIRST_ATTEMPT", 0.2)
    first, second = fake(lambda _: SILENCE), fake(lambda _: "done")
    with Client(first.address, second.address) as client:
        assert client.command(1) == "done"
    assert len(set(sessions_of(first, second))) == 1


def test_an_expired_session_is_replaced(fake: MakeFake) -> None:
    """The command that finds it expired was never sent before, so it goes into a new one."""
    expired = error(113, outcome="unknown")
    server = fake(in_turn("done", "done", expired, "done"))
    with Client(server.address) as client:
        for number in range(4):
            assert client.command(number) == "done"
    sent = sessions_of(server)
    assert [seq for _, seq in sent] == [1, 2, 3, 1, 2]
    assert [name == sent[0][0] for name, _ in sent] == [True, True, True, False, False]


def test_a_session_that_expired_in_doubt_is_told(fake: MakeFake) -> None:
    server = fake(in_turn("done", CLOSE, error(113, outcome="unknown"), "done"))
    with Client(server.address) as client:
        assert client.command(0) == "done"
        with pytest.raises(raftpico.SessionExpired) as raised:
            client.command(1)
        assert raised.value.outcome == "unknown"
        assert client.command(2) == "done"
    assert [seq for _, seq in sessions_of(server)] == [1, 2, 2, 1]


def test_the_outcome_counts_all_attempts(fake: MakeFake) -> None:
    """Refused in the end, but the first attempt may have been applied."""
    server = fake(in_turn(CLOSE, error(108, outcome="not_applied")))
    with Client(server.address, timeout=0.3) as client:
        with pytest.raises(raftpico.NoLeader) as raised:
            client.command(1)
        assert raised.value.outcome == "unknown"


def test_a_local_query_sees_what_the_client_has_seen(fake: MakeFake) -> None:
    server = fake(lambda _: "done")
    with Client(server.address) as client:
        client.local_query(1)
        assert client.command(1, index=True) == Answer("done", 2)
        client.local_query(1)
        client.local_query(1, min_index=0)
    asked = [request["params"].get("min_index") for request in server.requests]
    assert asked == [0, None, 2, 0]


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
