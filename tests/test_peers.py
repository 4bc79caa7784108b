"""What one server may say to another, spoken by hand: rubbish and old news move nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cluster import Closed, Cluster, Connection, wait_for

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


def test_a_refusal_of_another_term_holds_nothing_up(
    impersonated: tuple[Cluster, dict[str, Any], int],
) -> None:
    """Commands that a server passes on after leadership went away and came back are taken."""
    cluster, state, node = impersonated
    before = last_index(cluster)
    leader = cluster.wait_leader()
    with leader.connect() as peer:
        assert hello(peer, state, node, 50)["type"] == "welcome"
        propose(peer, state["current_term"] - 1, b'[101,{"Put":["old",1]}]\n')
        propose(peer, state["current_term"], b'[500,{"Put":["new",1]}]\n')
        wait_for("one entry more", lambda: last_index(cluster) == before + 1)


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
