"""What one server may say to another, spoken by hand: rubbish and old news move nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import Closed, Cluster, Connection, result_of, wait_for

MakeCluster = Callable[..., Cluster]
ADDRESS = "127.0.0.1:1"  # nobody listens there


def say(connection: Connection, message: dict[str, Any], payload: bytes = b"") -> None:
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    connection.send_bytes(line + payload)


def hello(connection: Connection, leader: dict[str, Any], node: int, incarnation: int) -> Any:
    say(
        connection,
        {
            "type": "hello",
            "protocol": 2,
            "cluster": leader["cluster_id"],
            "node": node,
            "incarnation": incarnation,
            "addr": ADDRESS,
            "to": leader["node_id"],
        },
    )
    return connection.receive()


def propose(connection: Connection, term: int, payload: bytes, again: bool = False) -> None:
    message = {
        "type": "propose",
        "term": term,
        "again": again,
        "count": payload.count(b"\n"),
        "bytes": len(payload),
    }
    say(connection, message, payload)


def propose_and_be_cut_off(connection: Connection, term: int, payload: bytes) -> None:
    propose(connection, term, payload)
    with pytest.raises(Closed):
        connection.receive()


def last_index(cluster: Cluster) -> int:
    index: int = cluster.wait_leader().state()["last_log_index"]
    return index


def get(cluster: Cluster, key: str) -> Any:
    return result_of(cluster.wait_leader().apply({"Get": key}, "Query"))


@pytest.fixture
def impersonated(make_cluster: MakeCluster) -> tuple[Cluster, dict[str, Any], int]:
    """Three members, one of them killed: its place in the cluster is free to be spoken for."""
    cluster = make_cluster(3)
    leader = cluster.wait_leader()
    victim = next(member for member in cluster if member is not leader)
    node: int = victim.state()["node_id"]
    victim.kill()
    return cluster, leader.state(), node


def test_a_stranger_proposes_nothing(make_cluster: MakeCluster) -> None:
    """D10: a hello with the right cluster id makes no member."""
    cluster = make_cluster(1)
    state = cluster[0].state()
    before = last_index(cluster)
    with cluster[0].connect() as stranger:
        assert hello(stranger, state, 77, 1)["type"] == "welcome"
        propose_and_be_cut_off(stranger, state["current_term"], b'[1,{"Put":["a",1]}]\n')
    assert last_index(cluster) == before


@pytest.mark.parametrize(
    "line",
    [
        b"[600,}}}\x01]\n",
        b"[600,]\n",
        b'[600,{"Put":["a",1]}x]\n',
        b"[0,1]\n",
        b"600,1\n",
        b'["s",1,600]\n',  # with a session
        b'["",1,600,1]\n',
        b'["s",0,600,1]\n',
        b'["s\x01",1,600,1]\n',
        b'["\\x",1,600,1]\n',
        b'["s",1,600,1,]\n',
        b'["s' + 1000 * b"s" + b'",1,600,1]\n',
    ],
)
def test_a_proposal_that_is_not_json_stays_out_of_the_log(
    impersonated: tuple[Cluster, dict[str, Any], int], line: bytes
) -> None:
    """D10: what a member passes on would stand in every log for good."""
    cluster, state, node = impersonated
    before = last_index(cluster)
    leader = cluster.wait_leader()
    with leader.connect() as peer:
        assert hello(peer, state, node, 50)["type"] == "welcome"
        propose_and_be_cut_off(peer, state["current_term"], line)
    assert last_index(cluster) == before
    assert cluster.put("after", 1) is None


@contextlib.contextmanager
def answering(
    cluster: Cluster, state: dict[str, Any], node: int, incarnation: int
) -> Iterator[None]:
    """Somebody at the dead member's address says that it is that member."""
    port = next(member for member in cluster if not member.running).port
    welcome = {
        "type": "welcome",
        "protocol": 2,
        "cluster": state["cluster_id"],
        "node": node,
        "incarnation": incarnation,
    }

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(json.dumps(welcome, separators=(",", ":")).encode() + b"\n")
            while connection.recv(1 << 16):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=answer, args=(listener.accept()[0],))
                thread.start()

    with socket.create_server(("127.0.0.1", port.number)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def test_a_refusal_of_another_term_holds_nothing_up(
    impersonated: tuple[Cluster, dict[str, Any], int],
) -> None:
    """Commands that a server passes on after leadership went away and came back are taken.

    They count only when the same life answers at the member's address; until then they are
    held up, and asked for again.
    """
    cluster, state, node = impersonated
    before = last_index(cluster)
    leader = cluster.wait_leader()
    with leader.connect() as peer:
        assert hello(peer, state, node, 50)["type"] == "welcome"
        propose(peer, state["current_term"] - 1, b'[101,{"Put":["old",1]}]\n')
        propose(peer, state["current_term"], b'[500,{"Put":["new",1]}]\n')
        assert peer.is_silent(0.2)
        assert last_index(cluster) == before

        def taken() -> bool:
            propose(peer, state["current_term"], b'[500,{"Put":["new",1]}]\n', again=True)
            return last_index(cluster) > before

        with answering(cluster, state, node, 50):
            wait_for("one entry more", taken)
            propose(peer, state["current_term"], b'[501,{"Put":["new",2]}]\n')
            wait_for("both are applied", lambda: get(cluster, "new") == 2)


HUGE = 2**53 - 1


def test_a_huge_incarnation_displaces_no_live_member(cluster: Cluster) -> None:
    """Who answers at the member's address is the member, whatever others claim."""
    leader = cluster.wait_leader()
    state = leader.state()
    for member in cluster:
        if member is not leader:
            with leader.connect() as stranger:
                said = hello(stranger, state, member.state()["node_id"], HUGE)
                assert said["type"] == "refused"
    for number, member in enumerate(cluster):
        result_of(member.apply({"Put": ["k", number]}))
    cluster.wait_converged()
    assert leader.state()["current_term"] == state["current_term"]


def test_a_huge_incarnation_locks_nobody_out(
    impersonated: tuple[Cluster, dict[str, Any], int],
) -> None:
    """Claimed while the member is dead, it counts until the member is back, and no longer."""
    cluster, state, node = impersonated
    leader = cluster.wait_leader()
    victim = next(member for member in cluster if not member.running)
    with leader.connect() as stranger:
        assert hello(stranger, state, node, HUGE)["type"] == "welcome"
        propose(stranger, state["current_term"], b'[500,{"Put":["new",1]}]\n')
        victim.restart()
        for number in range(10):
            result_of(victim.apply({"Put": ["k", number]}))
        with pytest.raises(Closed):
            stranger.receive()
    assert get(cluster, "new") is None
    cluster.wait_converged()


def test_an_earlier_life_of_a_member_is_refused(
    impersonated: tuple[Cluster, dict[str, Any], int],
) -> None:
    """C13: nothing that an earlier incarnation says counts."""
    cluster, state, node = impersonated
    leader = cluster.wait_leader()
    with leader.connect() as now, leader.connect() as earlier:
        assert hello(now, state, node, 50)["type"] == "welcome"
        assert hello(earlier, state, node, 49)["type"] == "refused"


def test_invented_servers_take_no_members_place(make_cluster: MakeCluster) -> None:
    """Strangers that say hello under many names are bounded, and members still find room."""
    cluster = make_cluster(1)
    state = cluster[0].state()
    strangers = [cluster[0].connect() for _ in range(40)]
    try:
        said = [
            hello(stranger, state, 1000 + at, 1)["type"]
            for at, stranger in enumerate(strangers)
        ]
        assert said.count("welcome") >= 1
        assert said.count("refused") >= 1
        cluster.add()
        cluster.add()
        cluster.put("after", 1)
        cluster.wait_converged()
    finally:
        for stranger in strangers:
            stranger.close()


def test_one_that_was_removed_welcomes_no_member(make_cluster: MakeCluster) -> None:
    """M10: who does not know yet that it is gone takes it for a member no more."""
    cluster = make_cluster(2)
    leader = cluster.wait_leader()
    (gone,) = cluster.others(leader)
    state = gone.state()
    leader.result("RemoveServer", {"addr": gone.address})
    gone.wait_says("this server was removed from its cluster")
    with gone.connect() as peer:
        said = hello(peer, state, leader.state()["node_id"], 50)
    assert (said["type"], said["removed"]) == ("refused", False)
