"""Whoever reaches the port: floods, endless lines, silence. Nobody else notices."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import (
    KVS,
    Closed,
    Cluster,
    Connection,
    Member,
    apply_request,
    code_of,
    result_of,
    wait_for,
)

MakeCluster = Callable[..., Cluster]

DESCRIPTORS = 200
CLIENTS = DESCRIPTORS - 96  # the rest is kept for files and peers
FEW_DESCRIPTORS = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *KVS)


@contextlib.contextmanager
def flood(member: Member, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing; those that the member cut off are among them."""
    host, port = member.address.rsplit(":", 1)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((host, int(port)), 10))
            for _ in range(count)
        ]


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def open_count(connections: list[socket.socket]) -> int:
    return sum(map(is_open, connections))


def test_a_flood_of_connections_leaves_peers_and_files_theirs(
    make_cluster: MakeCluster,
) -> None:
    """As many clients as descriptors allow: a member still gets in, and files are opened."""
    cluster = make_cluster(3, command=FEW_DESCRIPTORS)
    leader = cluster.wait_leader()
    victim = next(member for member in cluster if member is not leader)
    with leader.connect() as before, flood(leader, 400) as connections:
        wait_for("the last ones are cut off", lambda: open_count(connections) <= CLIENTS)
        assert open_count(connections) > CLIENTS // 2
        for number in range(100):
            assert "result" in before.apply({"Put": ["k", number]})
        assert before.call("TakeSnapshot")["result"]["snapshot_index"] > 0
        victim.restart()  # its connections to the leader are new ones
        assert result_of(victim.apply({"Put": ["k", 100]})) == 99
        with leader.connect() as late, contextlib.suppress(Closed):
            refused = late.call("GetServerState")
            assert code_of(refused) == 110
            assert refused["error"]["data"]["reason"] == "too many connections"
            assert late.is_silent(5) is False  # and closed
    wait_for("room again", lambda: accepts(leader))
    cluster.wait_converged()
    leader.wait_says("are turned away")
    assert leader.log.read_text().count("are turned away") == 1


def accepts(member: Member) -> bool:
    with member.connect() as connection, contextlib.suppress(Closed):
        return "result" in connection.call("GetServerState")
    return False


def test_extra_connections_do_not_stay(make_cluster: MakeCluster) -> None:
    """Past the limit only a peer may stay; who says nothing is cut off after a second."""
    cluster = make_cluster(1, command=FEW_DESCRIPTORS)
    with flood(cluster[0], CLIENTS + 30) as connections:
        # One of the places may have been the last question's of whether it is ready.
        wait_for("cut off", lambda: CLIENTS - open_count(connections) in (0, 1))
        connections[0].sendall(b'{"jsonrpc":"2.0","id":1,"method":"GetServerState"}\n')
        connections[0].setblocking(True)
        assert b'"result"' in connections[0].recv(1 << 16)


@pytest.fixture(scope="module")
def quiet(lone: Cluster) -> Connection:
    return lone[0].connect()


ATTACKS = {
    "an endless line": b"x" * 65536,
    "a million brackets": b"[" * 65536,
    "an endless string": b'{"jsonrpc":"' + b"a" * 65536,
    "blank lines": b"\n" * 65536,
    "NULs": b"\0" * 65536,
}


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_an_endless_sender_is_cut_off(lone: Cluster, quiet: Connection, attack: str) -> None:
    """16 MiB on one connection: little memory is taken, and others are served meanwhile."""
    before = resident_bytes(lone[0])
    with lone[0].connect() as attacker:
        with contextlib.suppress(Closed):
            for _ in range(256):
                attacker.send_bytes(ATTACKS[attack])
        assert "result" in quiet.call("GetServerState")
    assert resident_bytes(lone[0]) < before + (16 << 20)


def test_slow_senders(lone: Cluster, quiet: Connection) -> None:
    """A byte at a time, on many connections at once: each gets its answer in the end."""
    line = b'{"jsonrpc":"2.0","id":7,"method":"Apply","params":["LocalQuery","List"]}\n'
    slow = [lone[0].connect() for _ in range(50)]
    try:
        for at in range(len(line)):
            for connection in slow:
                connection.send_bytes(line[at : at + 1])
            if at % 16 == 0:
                assert "result" in quiet.call("GetServerState")
        for connection in slow:
            assert "result" in connection.receive()
    finally:
        for connection in slow:
            connection.close()


def test_half_open_connections(lone: Cluster) -> None:
    """Who closes the sending side still gets the answers; who resets is forgotten."""
    for _ in range(200):
        connection = lone[0].connect()
        connection.send(*(apply_request({"Put": ["k", 1]}) for _ in range(20)))
        connection._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )  # close() resets
        connection.close()
    with lone[0].connect() as connection:
        connection.send(*(apply_request({"Get": "k"}, "Query") for _ in range(20)))
        connection._socket.shutdown(socket.SHUT_WR)
        for _ in range(20):
            assert connection.receive()["result"] == 1
        with pytest.raises(Closed):
            connection.receive()


@pytest.mark.parametrize("cluster_id", ["x", "0" * 31, "F" * 32, '"'])
def test_an_identity_that_no_leader_gives(make_cluster: MakeCluster, cluster_id: str) -> None:
    """D10: a server that has none yet takes no other, lives on, and can still be added."""
    cluster = make_cluster(1)
    blank = cluster.new_member()
    header = Path(__file__).parent.parent / "csrc" / "wire" / "peer.h"
    version = re.search(r"#define PEER_PROTOCOL (\d+)", header.read_text())
    assert version
    with blank.connect() as stranger:
        hello = {"type": "hello", "protocol": int(version[1]), "cluster": "", "node": 0}
        say(stranger, {**hello, "incarnation": 1, "addr": "127.0.0.1:1", "to": 0})
        assert stranger.receive()["type"] == "welcome"
        say(stranger, {"type": "join", "cluster": cluster_id, "node": 5})
        with pytest.raises(Closed):
            stranger.receive()
    state = blank.state()
    assert state["node_id"] is None and "storage_failure" not in state
    assert len(cluster[0].result("AddServer", {"addr": blank.address})["members"]) == 2


def say(stranger: Connection, message: dict[str, object]) -> None:
    stranger.send_bytes(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def resident_bytes(member: Member) -> int:
    assert member.process is not None
    return int(Path(f"/proc/{member.process.pid}/statm").read_text().split()[1]) * 4096
