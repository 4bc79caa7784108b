"""User JSON is carried, never rewritten: what Get gives is what Put took, on every member."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from cluster import Cluster, Connection, Member, code_of, wait_for

# JSON texts, as a client sends them.
VALUES = {
    "a tenth": "0.1",
    "a float with an exponent": "1.5e-7",
    "a big float": "1.7976931348623157e308",
    "a small float": "5e-324",
    "minus zero": "-0.0",
    "a whole float": "1.0",
    "a big integer": "1180591620717411303424",
    "a big negative integer": "-1180591620717411303424",
    "past 64 bits": "18446744073709551616",
    "the last signed 64 bits": "-9223372036854775808",
    "past exact floats": "9007199254740993",
    "a NUL": r'"\u0000"',
    "a lone high surrogate": r'"\ud800"',
    "a lone low surrogate": r'"x\udc00y"',
    "surrogates in the wrong order": r'"\udc00\ud800"',
    "an escaped pair": r'"\ud83d\ude00"',
    "raw UTF-8": '"\u00e9\u20ac\U0001f600"',
    "line separators": '"\u2028\u2029"',
    "every escape": r'"\"\\\/\b\f\n\r\t\u001f\u007f"',
    "key order": '{"z":1,"a":2,"m":{"y":1,"b":2}}',
    "an empty key": '{"":{"":[]}}',
    "empty things": '[[],{},"",null,true,false,0]',
    "spaces": '{ "a" : [ 1 , 2 ] , "b" : { } }',
    "a long string": json.dumps("x" * 500_000),
    "a long list": json.dumps(list(range(50_000))),
    "nesting of a hundred": "[" * 100 + "]" * 100,
    "nested objects": '{"a":' * 100 + "1" + "}" * 100,
}


def meaning(text: bytes | str) -> Any:
    """The value, exactly: numbers as written, objects as ordered pairs."""
    return json.loads(
        text,
        parse_float=lambda t: ("float", Decimal(t).normalize(), t.startswith("-")),
        parse_int=lambda t: ("int", t),
        parse_constant=lambda t: ("constant", t),
        object_pairs_hook=lambda pairs: ("object", pairs),
    )


def result_text(line: bytes) -> bytes:
    start = b'{"jsonrpc":"2.0","id":7,"result":'
    assert line.startswith(start), line[:300]
    assert line.endswith(b"}")
    return line[len(start) : -1]


def send(connection: Connection, kind: str, value: str) -> bytes:
    connection.send_bytes(
        b'{"jsonrpc":"2.0","id":7,"method":"Apply","params":{"kind":"%s","input":%s}}\n'
        % (kind.encode(), value.encode())
    )
    return connection.receive_line()


def put(connection: Connection, key: str, value: str) -> bytes:
    return send(connection, "Command", f'{{"Put":{{"key":{json.dumps(key)},"value":{value}}}}}')


def get(connection: Connection, key: str, kind: str = "Query") -> Any:
    line = send(connection, kind, f'{{"Get":{{"key":{json.dumps(key)}}}}}')
    return meaning(result_text(line))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three durable members for the whole module."""
    cluster = Cluster(tmp_path_factory.mktemp("values"), 3)
    try:
        cluster.create()
    except BaseException:
        cluster.destroy()
        raise
    yield cluster
    cluster.close()


@pytest.mark.parametrize("name", VALUES)
def test_the_value_of_get_is_the_value_of_put(three: Cluster, name: str) -> None:
    text = VALUES[name]
    writer, *readers = [m.connect() for m in three]
    assert result_text(put(writer, name, text)) == b"null"
    for reader in (writer, *readers):
        assert get(reader, name) == meaning(text)
    # The value that was there before comes back from the next Put, too.
    assert meaning(result_text(put(readers[0], name, "0"))) == meaning(text)
    assert result_text(put(readers[1], name, text)) == b"0"
    for connection in (writer, *readers):
        connection.close()


def test_values_as_keys(three: Cluster) -> None:
    """A key is a string like any other."""
    with three[0].connect() as writer, three[1].connect() as reader:
        for at, key in enumerate(["", "\u0000", "\ud800", "\U0001f600", "a\nb", '"', "\\"]):
            put(writer, key, str(at))
            assert get(reader, key) == ("int", str(at))


def test_the_log_holds_the_bytes_that_were_sent(three: Cluster) -> None:
    """What the user sent as input is spliced into the entry's line byte for byte."""
    text = '{"Put" : {"key":"as sent", "value" : [0.10, 1E2, "\\u0041\\/", {"b":1,"a":2}] }}'
    with three[1].connect() as connection:
        send(connection, "Command", text)
    three.wait_converged()
    for member in three:
        last = member.log_lines()[member.state()["last_log_index"]]
        assert text.encode() in last


def test_values_survive_a_restart_of_all(make_cluster: Callable[..., Cluster]) -> None:
    """Replayed from the log, then restored from a snapshot: still the same values."""
    cluster: Cluster = make_cluster(3)
    with cluster[0].connect() as writer:
        for name, text in VALUES.items():
            assert result_text(put(writer, name, text)) == b"null"
    cluster.wait_converged()

    def check(member: Member) -> None:
        with member.connect() as reader:
            for name, text in VALUES.items():
                assert get(reader, name, "LocalQuery") == meaning(text), (member, name)

    for turn in ("log", "snapshot"):
        if turn == "snapshot":
            for member in cluster:
                member.result("TakeSnapshot")
        for member in cluster:
            member.restart()
        cluster.wait_leader()
        cluster.wait_converged()
        for member in cluster:
            check(member)
    check_new = cluster.add()
    cluster.wait_converged()
    check(check_new)


@pytest.mark.parametrize(
    "text",
    ["1e400", "-1e400", "[1e999]", "9" * 5000, "[" + "9" * 5000 + "]"],
    ids=["1e400", "-1e400", "a list", "5000 digits", "a list of 5000 digits"],
)
def test_a_number_that_python_cannot_hold_is_refused_or_unchanged(
    three: Cluster, text: str
) -> None:
    """Never Infinity, never another number; the same on all members, and the log goes on."""
    with three[0].connect() as writer, three[1].connect() as reader:
        put(writer, "huge", '"before"')
        line = put(writer, "huge", text)
        assert b"Infinity" not in line
        code = code_of(json.loads(line))
        if code is None:
            assert get(reader, "huge") == meaning(text)
        else:
            assert code == 103
            assert get(reader, "huge") == "before"
        assert result_text(put(writer, "next", '"alive"')) in (b"null", b'"alive"')
    three.wait_converged()


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "1e",
        "'a'",
        "[1,]",
        "{1:2}",
    ],
)
def test_what_is_no_json_is_refused_before_it_enters_the_log(three: Cluster, text: str) -> None:
    before = three.wait_converged()["last_log_index"]
    with three[0].connect() as writer:
        writer.send_bytes(
            b'{"jsonrpc":"2.0","id":7,"method":"Apply","params":'
            b'{"kind":"Command","input":{"Put":["bad",%s]}}}\n' % text.encode()
        )
        assert code_of(writer.receive()) == -32700
    assert three.wait_converged()["last_log_index"] == before


def test_duplicate_keys_mean_the_same_everywhere(three: Cluster) -> None:
    """The last one wins, as in Python's json, on every member alike."""
    with three[0].connect() as writer:
        put(writer, "double", '{"a":1,"a":2}')
    three.wait_converged()
    for member in three:
        with member.connect() as reader:
            assert get(reader, "double", "LocalQuery") == ("object", [("a", ("int", "2"))])


def test_the_deepest_nesting_allowed_and_one_more(three: Cluster) -> None:
    """Nesting is bounded: up to the limit carried, past it refused, and nobody is harmed."""

    def accepts(depth: int) -> bool:
        with three[0].connect() as connection:
            line = put(connection, "deep", "[" * depth + "]" * depth)
            return code_of(json.loads(line)) is None

    limit = next(d for d in range(100, 140) if not accepts(d))
    deepest = "[" * (limit - 1) + "]" * (limit - 1)
    for member in three:
        with member.connect() as connection:
            assert get(connection, "deep") == meaning(deepest)
    for depth in (limit, 1000, 100_000):
        with three[0].connect() as connection:
            line = put(connection, "deep", "[" * depth + "]" * depth)
            assert code_of(json.loads(line)) == -32700
            assert get(connection, "deep") == meaning(deepest)
    wait_for("all serve", lambda: len(three.states()) == 3)
