"""JSON-RPC 2.0 over JSON Lines on a live server: what each kind of line is answered with."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import (
    Closed,
    Cluster,
    Connection,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)

MakeCluster = Callable[..., Cluster]

MESSAGES = {
    -32700: "Parse error",
    -32600: "Invalid request",
    -32601: "Method not found",
    -32602: "Invalid params",
    100: "Cluster already created",
    101: "Server already added",
    102: "Not a cluster member",
}

GET = {"Get": {"key": "a"}}


@pytest.fixture
def connection(lone: Cluster) -> Iterator[Connection]:
    with lone[0].connect() as connection:
        yield connection


def still_works(connection: Connection) -> None:
    """The next good line on the same connection is answered, and nothing else comes first."""
    connection.send(request("GetServerState", None, "still"))
    assert connection.receive()["id"] == "still"


def put_line(key: str, value: object = 1, id: object = 0) -> dict[str, Any]:
    return apply_request({"Put": {"key": key, "value": value}}, "Command", id)


# --- shapes of a response ---------------------------------------------------------------------


def test_a_response_is_one_compact_line_in_order(connection: Connection) -> None:
    connection.send(put_line("shape", [1, {"b": 2, "a": 1}]))
    assert connection.receive_line() == b'{"jsonrpc":"2.0","id":0,"result":null}'
    connection.send(apply_request({"Get": {"key": "shape"}}, "Query"))
    line = connection.receive_line()
    assert line == b'{"jsonrpc":"2.0","id":0,"result":[1,{"b":2,"a":1}]}'
    connection.send(request("CreateCluster"))
    line = connection.receive_line()
    start = b'{"jsonrpc":"2.0","id":0,"error":{"code":100,"message":"Cluster already created"'
    assert line.startswith(start)
    assert list(json.loads(line)["error"])[:2] == ["code", "message"]


@pytest.mark.parametrize(
    "raw",
    [
        "0",
        "-1",
        "-0",
        "1.0",
        "1e5",
        "1E+5",
        "0.10",
        "123456789012345678901234567890",
        "1e400",
        "null",
        '""',
        '"abc"',
        r'"a\u0041\n\/"',
        r'"\ud800"',
        '"\u00e9\U0001f600"',
        '"' + "x" * 1000 + '"',
    ],
)
def test_the_id_comes_back_byte_for_byte(connection: Connection, raw: str) -> None:
    for method, params in (
        ("GetServerState", "{}"),
        ("Apply", '{"kind":"Command","input":{"Put":["id",1]}}'),
        ("Apply", '{"kind":"Query","input":{"Get":"id"}}'),
        ("Apply", '{"kind":"LocalQuery","input":{"Get":"id"}}'),
        ("NoSuchMethod", "{}"),
        ("Apply", '{"kind":"NoSuchKind","input":1}'),
    ):
        connection.send_bytes(
            f'{{"jsonrpc":"2.0","id":{raw},"method":"{method}","params":{params}}}\n'.encode()
        )
        line = connection.receive_line()
        assert line.startswith(b'{"jsonrpc":"2.0","id":' + raw.encode() + b",")


def test_members_of_a_request_in_any_order_and_spacing(connection: Connection) -> None:
    connection.send_bytes(
        b'  { "params" : { "input" : { "Get" : "none" } , "kind" : "Query" } ,\t"id" : 5 ,'
        b' "unknown" : [ ] , "method" : "Apply" , "jsonrpc" : "2.0" }  \r\n'
    )
    assert connection.receive_line() == b'{"jsonrpc":"2.0","id":5,"result":null}'


def test_escaped_names_are_the_same_names(connection: Connection) -> None:
    connection.send_bytes(
        rb'{"json\u0072pc":"2.0","\u0069d":6,"method":"\u0041pply",'
        rb'"params":{"kind":"\u0051uery","inp\u0075t":{"Get":"none"}}}' + b"\n"
    )
    assert connection.receive_line() == b'{"jsonrpc":"2.0","id":6,"result":null}'


def test_blank_lines_and_crlf(connection: Connection) -> None:
    line = json.dumps(request("GetServerState", None, 1)).encode()
    connection.send_bytes(b"\n\r\n  \n\t\r\n" + line + b"\r\n\n")
    assert connection.receive()["id"] == 1
    still_works(connection)


def test_a_line_in_pieces(connection: Connection) -> None:
    text = "\u00e9\U0001f600"
    line = json.dumps(put_line("pieces", text), ensure_ascii=False).encode()
    for at in range(len(line)):
        connection.send_bytes(line[at : at + 1])
    connection.send_bytes(b"\n")
    assert result_of(connection.receive()) is None
    assert result_of(connection.apply({"Get": {"key": "pieces"}}, "Query")) == text


def test_params_by_position(connection: Connection) -> None:
    """In the order of the method table."""
    connection.send(request("Apply", ["Command", {"Put": ["position", 3]}]))
    result_of(connection.receive())
    connection.send(request("Apply", ["Query", {"Get": "position"}]))
    assert result_of(connection.receive()) == 3
    connection.send(request("CreateCluster", [100, 200]))
    assert code_of(connection.receive()) == 100
    connection.send(request("RemoveServer", ["127.0.0.1:1"]))
    assert code_of(connection.receive()) == 102
    connection.send(request("GetServerState", []))
    assert "result" in connection.receive()


def test_create_cluster_by_position(make_cluster: MakeCluster) -> None:
    one = make_cluster(1, create=False)[0]
    assert one.result("CreateCluster", [150, 350]) == {"members": [one.address]}
    system = one.state()["machines"]["system"]
    assert system["min_election_timeout_ms"] == 150
    assert system["max_election_timeout_ms"] == 350


# --- notifications and batches ----------------------------------------------------------------


def test_notifications_are_carried_out_and_never_answered(connection: Connection) -> None:
    """The seed's own fault: it answered notifications. Not even an error is written."""
    notification = put_line("notified", 7)
    del notification["id"]
    unknown = {"jsonrpc": "2.0", "method": "NoSuchMethod"}
    wrong = {"jsonrpc": "2.0", "method": "Apply", "params": {"kind": "Command"}}
    refused = {"jsonrpc": "2.0", "method": "CreateCluster"}
    state = {"jsonrpc": "2.0", "method": "GetServerState"}
    connection.send(notification, unknown, wrong, refused, state)
    assert wait_for(
        "the notification is applied",
        lambda: result_of(connection.apply({"Get": {"key": "notified"}}, "Query")),
    )
    still_works(connection)


def test_an_id_of_null_is_no_notification(connection: Connection) -> None:
    connection.send(request("GetServerState", None, None))
    assert connection.receive()["id"] is None


def test_a_batch_is_answered_with_a_batch(connection: Connection) -> None:
    """The seed's own fault: it refused batches."""
    silent = put_line("batch-silent", 1)
    del silent["id"]
    connection.send(
        [
            put_line("batch", 1, "put"),
            silent,
            request("NoSuchMethod", None, "unknown"),
            17,
            request("GetServerState", None, "state"),
        ]
    )
    line = connection.receive_line()
    responses = json.loads(line)
    assert isinstance(responses, list)
    by_id = {r["id"]: r for r in responses}
    assert set(by_id) == {"put", "unknown", "state", None}
    assert len(responses) == 4
    assert by_id["put"]["result"] is None
    assert code_of(by_id["unknown"]) == -32601
    assert code_of(by_id[None]) == -32600
    assert "result" in by_id["state"]
    still_works(connection)


def test_an_empty_batch_is_one_invalid_request(connection: Connection) -> None:
    connection.send([])
    response = connection.receive()
    assert isinstance(response, dict)
    assert code_of(response) == -32600
    assert response["id"] is None
    still_works(connection)


def test_a_batch_of_rubbish_is_an_error_each(connection: Connection) -> None:
    connection.send([1, "x", None])
    responses = connection.receive()
    assert [code_of(r) for r in responses] == [-32600] * 3
    still_works(connection)


def test_a_batch_of_notifications_is_not_answered(connection: Connection) -> None:
    note = {"jsonrpc": "2.0", "method": "GetServerState"}
    connection.send([note, note])
    still_works(connection)


def test_a_large_batch(connection: Connection) -> None:
    connection.send([put_line(f"large-{i}", i, i) for i in range(500)])
    responses = connection.receive()
    assert sorted(r["id"] for r in responses) == list(range(500))
    assert all("result" in r for r in responses)


def test_a_batch_past_the_limit_is_refused_with_its_name(connection: Connection) -> None:
    connection.send([{"jsonrpc": "2.0", "id": i, "method": "x"} for i in range(1001)])
    response = connection.receive()
    assert code_of(response) == -32600
    assert "1000" in json.dumps(response["error"])
    still_works(connection)


# --- the error table --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("words", b"hello"),
        ("truncated", b'{"jsonrpc":"2.0","id":1,"method":"GetServerState"'),
        ("trailing", b'{"jsonrpc":"2.0","id":1,"method":"GetServerState"} x'),
        ("two values", b"{} {}"),
        ("bad utf-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff"}'),
        ("overlong utf-8", b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}'),
        ("raw surrogate", b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}'),
        ("nul in a string", b'{"jsonrpc":"2.0","id":1,"method":"a\0b"}'),
        ("nul after a number", b'{"jsonrpc":"2.0","id":1\0,"method":"x"}'),
        ("nul at the end", b'{"jsonrpc":"2.0","id":1,"method":"x"}\0'),
        ("control character", b'{"jsonrpc":"2.0","id":1,"method":"a\tb"}'),
        ("too deep", b"[" * 200 + b"]" * 200),
        ("unclosed", b"[" * 100_000),
        ("single quotes", b"{'jsonrpc':'2.0'}"),
        ("trailing comma", b'{"jsonrpc":"2.0",}'),
        ("byte order mark", b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"GetServerState"}'),
        ("bad escape", rb'{"jsonrpc":"2.0","id":1,"method":"\x"}'),
        ("half an escape", rb'{"jsonrpc":"2.0","id":1,"method":"\u12"}'),
        ("NaN", b'{"jsonrpc":"2.0","id":NaN,"method":"x"}'),
    ],
)
def test_a_line_that_is_no_json_is_32700(
    connection: Connection, name: str, line: bytes
) -> None:
    connection.send_bytes(line + b"\n")
    response = connection.receive()
    assert code_of(response) == -32700, name
    assert response["error"]["message"] == MESSAGES[-32700]
    assert response["id"] is None
    still_works(connection)


@pytest.mark.parametrize(
    ("line", "id"),
    [
        ("17", None),
        ('"GetServerState"', None),
        ("null", None),
        ("true", None),
        ("{}", None),
        ('{"id":3,"method":"GetServerState"}', 3),
        ('{"jsonrpc":"1.0","id":3,"method":"GetServerState"}', 3),
        ('{"jsonrpc":2.0,"id":3,"method":"GetServerState"}', 3),
        ('{"jsonrpc":"2.0","id":"abc"}', "abc"),
        ('{"jsonrpc":"2.0","id":3,"method":17}', 3),
        ('{"jsonrpc":"2.0","id":3,"method":null}', 3),
        ('{"jsonrpc":"2.0","id":{},"method":"GetServerState"}', None),
        ('{"jsonrpc":"2.0","id":[1],"method":"GetServerState"}', None),
        ('{"jsonrpc":"2.0","id":true,"method":"GetServerState"}', None),
    ],
)
def test_json_that_is_no_request_is_32600(connection: Connection, line: str, id: Any) -> None:
    connection.send_bytes(line.encode() + b"\n")
    response = connection.receive()
    assert code_of(response) == -32600
    assert response["error"]["message"] == MESSAGES[-32600]
    assert response["id"] == id
    still_works(connection)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("GetServerStat", "GetServerState"),
        ("createcluster", "CreateCluster"),
        ("AddServers", "AddServer"),
        ("apply", "Apply"),
        ("TakeSnapshots", "TakeSnapshot"),
        ("RemoveServe", "RemoveServer"),
    ],
)
def test_an_unknown_method_is_32601_and_names_the_nearest(
    connection: Connection, wrong: str, right: str
) -> None:
    """The seed's own fault: unknown methods got -32602."""
    response = connection.call(wrong, {})
    assert code_of(response) == -32601
    assert response["error"]["message"] == MESSAGES[-32601]
    assert right in json.dumps(response["error"]["data"])


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("Apply", {"kind": "Command"}, "input"),
        ("Apply", {"input": 1}, "kind"),
        ("Apply", {"kind": "command", "input": 1}, "kind"),
        ("Apply", {"kind": 3, "input": 1}, "kind"),
        ("Apply", None, "kind"),
        ("Apply", ["Command"], "input"),
        ("AddServer", {}, "addr"),
        ("AddServer", None, "addr"),
        ("AddServer", {"addr": 4001}, "addr"),
        ("AddServer", {"addr": "127.0.0.1"}, "addr"),
        ("AddServer", {"addr": "127.0.0.1:port"}, "addr"),
        ("AddServer", {"addr": "127.0.0.1:70000"}, "addr"),
        ("AddServer", {"addr": ""}, "addr"),
        ("AddServer", {"addr": "x" * 1000 + ":1"}, "addr"),
        ("RemoveServer", {}, "addr"),
        ("CreateCluster", {"min_election_timeout_ms": "x"}, "min_election_timeout_ms"),
        ("CreateCluster", {"min_election_timeout_ms": 0}, "min_election_timeout_ms"),
        ("CreateCluster", {"max_election_timeout_ms": -1}, "max_election_timeout_ms"),
        (
            "CreateCluster",
            {"min_election_timeout_ms": 500, "max_election_timeout_ms": 400},
            "election_timeout_ms",
        ),
        ("CreateCluster", {"max_election_timeout_ms": 1e300}, "max_election_timeout_ms"),
    ],
)
def test_wrong_params_are_32602_and_say_which(
    connection: Connection, method: str, params: Any, named: str
) -> None:
    response = connection.call(method, params)
    assert code_of(response) == -32602, response
    assert response["error"]["message"] == MESSAGES[-32602]
    assert named in json.dumps(response["error"]["data"])
    still_works(connection)


@pytest.mark.parametrize("params", ['"text"', "17", "true"])
def test_params_that_are_no_structure_are_refused(connection: Connection, params: str) -> None:
    connection.send_bytes(
        b'{"jsonrpc":"2.0","id":1,"method":"Apply","params":%s}\n' % params.encode()
    )
    assert code_of(connection.receive()) in (-32600, -32602)
    still_works(connection)


@pytest.mark.parametrize(
    "value",
    [
        "Nothing",
        17,
        None,
        [],
        {},
        {"Put": {"key": "a"}},
        {"Put": ["a"]},
        {"Put": [1, 2]},
        {"Get": {}},
        {"Get": 1},
        {"NoSuch": 1},
    ],
    ids=json.dumps,
)
def test_input_that_the_machine_refuses_is_103(connection: Connection, value: Any) -> None:
    for kind in ("Command", "Query", "LocalQuery"):
        error = connection.apply(value, kind)["error"]
        assert error["code"] == 103
        assert error["message"] == "Invalid machine input"
        assert error["data"]["reason"]
        assert error["data"]["outcome"] in ("applied", "not_applied")
    still_works(connection)


# --- the state --------------------------------------------------------------------------------


def test_the_state_before_there_is_a_cluster(make_cluster: MakeCluster) -> None:
    one = make_cluster(1, create=False)[0]
    state = one.state()
    assert state["addr"] == one.address
    assert state["node_id"] is None
    assert state["role"] == "Follower"
    assert state["leader"] is None
    assert state["commit_index"] == state["applied_index"] == state["last_log_index"] == 0


def test_the_state_has_its_members(lone: Cluster) -> None:
    one = lone[0]
    one.apply({"Put": {"key": "state", "value": [1, 2]}})
    state = one.state()
    for name in (
        "addr",
        "node_id",
        "current_term",
        "voted_for",
        "role",
        "commit_index",
        "snapshot",
        "machines",
        "cluster_id",
        "leader",
        "applied_index",
        "last_log_index",
    ):
        assert name in state
    assert state["role"] == "Leader"
    assert set(state["snapshot"]) == {"term", "index"}
    assert state["commit_index"] <= state["last_log_index"]
    assert "user" not in state["machines"]
    assert "[1, 2]" in json.dumps(one.state(user=True)["machines"]["user"])


# --- limits and hostile input -----------------------------------------------------------------


def test_a_line_at_the_limit_and_past_it(lone: Cluster) -> None:
    """A line of 1 MiB passes; past that the limit is named, and only that connection closes."""
    limit = 1 << 20

    def line_of(size: int) -> bytes:
        bare = len(json.dumps(put_line("long", "")))
        return json.dumps(put_line("long", "x" * (size - bare))).encode()

    with lone[0].connect() as neighbour:
        with lone[0].connect() as connection:
            connection.send_bytes(line_of(limit) + b"\n")
            result_of(connection.receive())
        with lone[0].connect() as connection:
            connection.send_bytes(line_of(limit + 1) + b"\n")
            response = connection.receive()
            assert code_of(response) in (-32600, -32700)
            assert str(limit) in json.dumps(response["error"])
        value = result_of(neighbour.apply({"Get": {"key": "long"}}, "Query"))
        assert len(value) < limit
        still_works(neighbour)


def test_a_line_without_end_closes_its_connection_alone(lone: Cluster) -> None:
    with lone[0].connect() as neighbour, lone[0].connect() as endless:

        def feed() -> None:
            try:
                for _ in range(64):
                    endless.send_bytes(b"x" * (1 << 20))
            except Closed:
                pass

        feeder = threading.Thread(target=feed)
        feeder.start()
        with pytest.raises(Closed):
            while True:
                assert code_of(endless.receive()) in (-32600, -32700)
        feeder.join()
        still_works(neighbour)


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /x HTTP/1.0\r\n\r\n",
        b"Host: localhost\r\n\r\n",
    ],
    ids=["POST", "GET", "PUT", "a header alone"],
)
def test_http_closes_the_connection_before_anything_is_read(lone: Cluster, head: bytes) -> None:
    """A web page that makes a browser send a request to a local port moves nothing."""
    with lone[0].connect() as connection:
        line = json.dumps(put_line("from the web", 1)).encode()
        connection.send_bytes(head + line + b"\n")
        with pytest.raises(Closed):
            connection.receive(10.0)
    assert result_of(lone[0].apply({"Get": {"key": "from the web"}}, "Query")) is None


def test_many_bad_lines_harm_only_their_connection(lone: Cluster) -> None:
    with lone[0].connect() as neighbour, lone[0].connect() as bad:
        answers = 0
        try:
            bad.send_bytes(b"bad\n" * 20_000)
            for _ in range(20_000):
                assert code_of(bad.receive()) == -32700
                answers += 1
        except Closed:
            pass  # a limit on bad lines in a row may close it, after it has answered some
        assert answers > 0
        still_works(neighbour)


def test_a_client_that_does_not_read_harms_only_itself(lone: Cluster) -> None:
    """What cannot be written is bounded: the server stops reading from that client."""
    lone[0].apply({"Put": {"key": "big", "value": "x" * 100_000}})
    with lone[0].connect() as deaf, lone[0].connect() as neighbour:
        stop = threading.Event()

        def flood() -> None:
            line = json.dumps(apply_request({"Get": {"key": "big"}}, "LocalQuery")).encode()
            try:
                while not stop.is_set():
                    deaf.send_bytes(line + b"\n")
            except (Closed, TimeoutError):
                pass

        flooder = threading.Thread(target=flood)
        flooder.start()
        for turn in range(200):
            neighbour.apply({"Put": {"key": "n", "value": turn}})
        assert result_of(neighbour.apply({"Get": {"key": "n"}}, "Query")) == 199
        process = lone[0].process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status")
        if status.exists():
            resident = next(
                int(line.split()[1])
                for line in status.read_text().splitlines()
                if line.startswith("VmRSS")
            )
            assert resident < 1_000_000, f"{resident} kB"
        stop.set()
        deaf._socket.shutdown(socket.SHUT_RDWR)
        flooder.join()


def test_many_connections(lone: Cluster) -> None:
    connections = [lone[0].connect() for _ in range(300)]
    for at, connection in enumerate(connections):
        connection.send(put_line("many", at, at))
    for at, connection in enumerate(connections):
        assert connection.receive()["id"] == at
        connection.close()
