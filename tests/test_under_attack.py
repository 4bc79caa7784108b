"""A real member under attack: its memory stays bounded, others are served, all is well after.

The bounds come from csrc/base/limits.h; each test says its arithmetic. Latencies are compared
within one run, and generously: the attacker shares the processors with what it attacks.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import (
    ANSWER_SECONDS,
    Closed,
    Cluster,
    Connection,
    Member,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)

MakeCluster = Callable[..., Cluster]
LIMITS = (Path(__file__).resolve().parent.parent / "csrc" / "base" / "limits.h").read_text()
MIB = 1 << 20
LATENCY_FACTOR = 10  # while the flood comes in; and at least so many milliseconds (noise)
LATENCY_MS = 10
USUAL_FACTOR = 2  # when it is in, with all who made it still there; the same
USUAL_MS = 1
SLACK = 24 * MIB
"""What an allocator, the interpreter and a turn's batches may add: two batches for the machine
(2 x 4 MiB and as much for their outputs) and the buffers of one read."""


def limit(name: str) -> int:
    """A number of limits.h."""
    found = re.search(rf"#define {name}\s*\\?\s*\(?([0-9uUlL* ]+)\)?", LIMITS)
    assert found, name
    product = 1
    for factor in re.findall(r"\d+", found[1]):
        product *= int(factor)
    return product


def memory(member: Member, line: str) -> int:
    """Bytes: VmRSS, or VmHWM, the most that it ever was."""
    assert member.process is not None
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    found = re.search(rf"^{line}:\s+(\d+) kB", status, re.M)
    assert found
    return int(found[1]) * 1024


@pytest.fixture
def target(make_cluster: MakeCluster) -> Iterator[Member]:
    """A cluster of one. Whatever is done to it, it serves fully afterwards."""
    cluster = make_cluster(1, durable=False)
    cluster.wait_leader()
    yield cluster[0]
    assert "result" in cluster[0].apply({"Put": ["after", 1]})
    assert result_of(cluster[0].apply({"Get": "after"}, "Query")) == 1
    assert result_of(cluster[0].apply({"Get": "after"}, "LocalQuery")) == 1


class WellBehaved:
    """A client that asks one thing at a time, and how long that took."""

    def __init__(self, member: Member) -> None:
        self.connection = member.connect()

    def median_ms(self, count: int = 60) -> float:
        took = []
        for _ in range(count):
            begin = time.monotonic()
            result_of(self.connection.apply({"Put": ["well", 1]}))
            took.append((time.monotonic() - begin) * 1000)
        return statistics.median(took)


@contextlib.contextmanager
def attack(member: Member, bound: int, what: str) -> Iterator[None]:
    """Around an attack: memory grows by at most `bound`; another client is served all along,
    and as usual when there is nothing new to do for the attackers."""
    client = WellBehaved(member)
    usual = client.median_ms()
    before = memory(member, "VmRSS")
    yield
    during = client.median_ms()
    grown = memory(member, "VmHWM") - before
    print(
        f"{what}: {grown / MIB:.1f} of {bound / MIB:.0f} MiB;"
        f" latency {during:.2f} ms, usually {usual:.2f} ms"
    )
    assert grown <= bound, f"{what}: {grown / MIB:.1f} MiB more, at most {bound / MIB:.1f}"
    assert during <= max(LATENCY_FACTOR * usual, LATENCY_MS), (during, usual)
    wait_for(
        "others are served as usual",
        lambda: client.median_ms() <= max(USUAL_FACTOR * usual, USUAL_MS),
        30,
    )
    client.connection.close()


def lines(*messages: Any) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


# --- one connection ---------------------------------------------------------------------------


def test_a_line_of_a_gigabyte(target: Member) -> None:
    """Refused past LINE_BYTES_MAX: what is held is a line, in a buffer of up to twice that."""
    bound = 2 * limit("LINE_BYTES_MAX") + SLACK
    piece = b"[" + b"1," * (MIB // 2)
    sent = 0
    with attack(target, bound, "a line of 1 GiB"), target.connect() as connection:
        with contextlib.suppress(Closed):
            while sent < 1024:
                connection.send_bytes(piece)
                sent += 1
        with contextlib.suppress(Closed):  # what it said may be lost with the connection
            response = connection.receive()
            assert code_of(response) == -32700
            assert response["error"]["data"]["limit_bytes"] == limit("LINE_BYTES_MAX")
    # It reads FINISH_BYTES_MAX on at most; the kernel's buffers take as much once more.
    assert sent * MIB <= 3 * limit("FINISH_BYTES_MAX")


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_a_million_brackets(target: Member, bracket: bytes) -> None:
    count = limit("LINE_BYTES_MAX") // len(bracket) - 1
    with attack(target, 2 * MIB + SLACK, "brackets"), target.connect() as connection:
        connection.send_bytes(bracket * count + b"\n")
        response = connection.receive()
        assert code_of(response) == -32700 and "128" in json.dumps(response)
        connection.send(request("GetServerState", None, 7))
        assert connection.receive()["id"] == 7


def count_lines(connection: Connection, count: int, seen: list[int]) -> None:
    for _ in range(count):
        seen.append(connection.receive(ANSWER_SECONDS)["id"])


def test_a_hundred_thousand_requests_on_one_connection(target: Member) -> None:
    """What waits is at most IN_FLIGHT_PER_CLIENT_MAX requests and one read of READ_BYTES_MAX
    (and the entries of a log in memory: 100,000 of some 150 bytes); all are answered, once."""
    count = 100_000
    bound = 2 * limit("CLIENT_OUT_BYTES_MAX") + count * 400 + SLACK
    put = [apply_request({"Put": ["a", at]}, "Command", at) for at in range(count)]
    data = lines(*put)
    seen: list[int] = []
    with target.connect() as connection:
        sender = threading.Thread(target=connection.send_bytes, args=(data,))
        with attack(target, bound, "100,000 pipelined requests"):
            sender.start()
            count_lines(connection, count // 2, seen)
        count_lines(connection, count - count // 2, seen)
        sender.join()
    assert sorted(seen) == list(range(count))


# --- many connections -------------------------------------------------------------------------


def never_reads(member: Member, data: bytes) -> socket.socket:
    """Sends what it can without waiting, with a small window, and reads nothing."""
    host, port = member.address.rsplit(":", 1)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while data:
            data = data[client.send(data) :]
    return client


def bound_of(clients: int, each: int) -> int:
    """What the README says of a member's clients: what is unread and what is unfinished or
    waits is bounded for all together; the machine and an allocator have as much once more; and
    a connection costs 8 KiB. Less where the clients send and ask for less than that."""
    of_all = limit("CLIENTS_OUT_BYTES_MAX") + limit("CLIENTS_IN_BYTES_MAX")
    return 2 * min(clients * each, of_all) + clients * 8192 + SLACK


def check_never_read(target: Member, clients: int, answers: int, answer_bytes: int) -> None:
    """Of one alone, CLIENT_OUT_BYTES_MAX are held, its lines, and the answers to what was read
    in one piece before there were so many."""
    result_of(target.apply({"Put": ["big", "x" * answer_bytes]}))
    line_bytes = len(lines(apply_request({"Get": "big"}, "LocalQuery", answers)))
    piece = limit("READ_BYTES_MAX") // line_bytes * answer_bytes
    most = limit("CLIENT_OUT_BYTES_MAX") + piece
    each = min(answers * answer_bytes, most) + answers * line_bytes
    bound = bound_of(clients, each)
    data = lines(*(apply_request({"Get": "big"}, "LocalQuery", at) for at in range(answers)))
    what = f"{clients} clients that never read {answers} answers of {answer_bytes} bytes"
    with contextlib.ExitStack() as stack, attack(target, bound, what):
        for _ in range(clients):
            stack.callback(never_reads(target, data).close)
    wait_for("memory is given back", lambda: memory(target, "VmRSS") < 4 * SLACK, 30)


def test_clients_that_never_read(target: Member) -> None:
    check_never_read(target, 20, 4000, 4000)


def test_many_clients_that_never_read(target: Member) -> None:
    """More than may lie unread: under pressure each has less, and is closed sooner."""
    check_never_read(target, 400, 2000, 4000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "answer_bytes"), [(100, 4000), (2000, 4000), (500, 100_000)]
)
def test_a_thousand_clients_that_never_read(
    target: Member, answers: int, answer_bytes: int
) -> None:
    check_never_read(target, 1000, answers, answer_bytes)


def ask_big(client: socket.socket, count: int) -> None:
    client.sendall(lines(*[apply_request({"Get": "big"}, "LocalQuery")] * count))


def small_window(target: Member) -> socket.socket:
    return never_reads(target, b"")


def test_clients_that_stop_reading_before_the_limit(target: Member) -> None:
    """Each has less unread than it may have, and asks for no more; all of them together have
    too much. They are closed as well, or the pressure would never end for the others."""
    size, clients = 100_000, 200
    result_of(target.apply({"Put": ["big", "x" * size]}))
    # The system takes some 2.5 MiB; where it takes less they come to the limit, and are closed.
    count = (limit("CLIENT_OUT_BYTES_MAX") + 2 * MIB) // size - 4

    def read_slowly(client: socket.socket) -> bool:
        left = count * size
        with contextlib.suppress(ConnectionError):
            while left > 0 and (piece := client.recv(MIB)):
                left -= len(piece)
        return left <= 0

    def some_may_be_slow() -> bool:
        """Whether they may leave as much unread for two seconds: nothing presses."""
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(small_window(target)) for _ in range(4)]
            for client in slow:
                client.setblocking(True)
                ask_big(client, count)
            time.sleep(2 * limit("CLIENT_STALL_PRESSED_MS") / 1000)
            return all(read_slowly(client) for client in slow)

    assert some_may_be_slow()
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            client = stack.enter_context(small_window(target))
            client.setblocking(True)
            ask_big(client, count)
        time.sleep(3 * limit("CLIENT_STALL_PRESSED_MS") / 1000)
        assert some_may_be_slow()


def test_lines_that_never_end(target: Member) -> None:
    """A megabyte each, of 300 clients: what is unfinished is bounded for all together."""
    data = b"[" + b"1," * (MIB // 2 - 8)
    clients = 300
    bound = limit("CLIENTS_IN_BYTES_MAX") + clients * 8192 + SLACK
    refused = 0
    with contextlib.ExitStack() as stack, attack(target, bound, "lines that never end"):
        sent = []
        for _ in range(clients):
            client = stack.enter_context(target.connect())
            with contextlib.suppress(Closed):
                client.send_bytes(data)
            sent.append(client)
        for client in sent:
            with contextlib.suppress(Closed, TimeoutError):
                answer = client.receive(0.01)
                assert code_of(answer) == 110 and answer["error"]["data"]["retry_after_ms"] > 0
                refused += 1
    assert refused >= clients - bound // MIB


def idle_connections(target: Member, count: int) -> None:
    """Of each: a handle, a node_conn, an unfinished line of a few bytes: 8 KiB at most."""
    host, port = target.address.rsplit(":", 1)
    bound = count * 8192 + SLACK
    with contextlib.ExitStack() as stack, attack(target, bound, f"{count} idle connections"):
        for at in range(count):
            client = socket.create_connection((host, int(port)), 30)
            stack.callback(client.close)
            if at % 3 == 1:
                client.sendall(b'{"jsonrpc":')  # never more of it: a slow sender
            elif at % 3 == 2:
                client.shutdown(socket.SHUT_WR)  # half open: it still could be answered


def test_idle_connections(target: Member) -> None:
    idle_connections(target, 600)


@pytest.mark.slow
def test_ten_thousand_idle_connections(target: Member) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert target.process is not None
    idle_connections(target, min(10_000, most - 200))


def test_no_descriptors_left(make_cluster: MakeCluster) -> None:
    """Peers and files keep theirs: the cluster elects, writes and snapshots on."""
    cluster = make_cluster(3)
    leader = cluster.wait_leader()
    leader.terminate()
    leader.command = ["prlimit", "--nofile=160", *leader.command]
    leader.start()
    leader.wait_ready()
    cluster.wait_leader()
    host, port = leader.address.rsplit(":", 1)
    with leader.connect() as early, contextlib.ExitStack() as stack:
        result_of(early.call("GetServerState"))
        for _ in range(400):
            client = socket.create_connection((host, int(port)), 30)
            stack.callback(client.close)
        assert "result" in early.apply({"Put": ["a", 1]})
        assert "snapshot_index" in result_of(early.call("TakeSnapshot"))
        cluster.put("b", 2, cluster.others(leader)[0])
        wait_for(
            "it follows the log",
            lambda: result_of(early.apply({"Get": "b"}, "LocalQuery")) == 2,
        )

    def takes_connections() -> bool:
        try:
            answers = [leader.rpc("GetServerState", timeout=2.0) for _ in range(20)]
        except (OSError, Closed):
            return False  # some of the 400 are still in its backlog
        return all("result" in answer for answer in answers)  # or it still has too many: 110

    wait_for("it takes connections again", takes_connections)
    cluster.wait_converged()


# --- strangers --------------------------------------------------------------------------------


def test_a_hello_of_another_cluster_is_refused(make_cluster: MakeCluster) -> None:
    """M14, D10: under a member's own name, but not of this cluster."""
    cluster = make_cluster(2, durable=False)
    leader = cluster.wait_leader()
    state = leader.state()
    other = cluster.others(leader)[0].state()
    hello = {
        "type": "hello",
        "protocol": 1,
        "cluster": "0" * 32,
        "node": other["node_id"],
        "incarnation": 99,
        "addr": "127.0.0.1:1",
        "to": state["node_id"],
    }
    with leader.connect() as stranger:
        stranger.send_bytes(json.dumps(hello, separators=(",", ":")).encode() + b"\n")
        assert stranger.receive()["type"] == "refused"
        with pytest.raises(Closed):
            stranger.receive()
    assert leader.state()["current_term"] == state["current_term"]
