"""A cluster's life on real processes: created, grown, shrunk, read, snapshotted, restarted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from cluster import (
    ANSWER_SECONDS,
    Closed,
    Cluster,
    Connection,
    Member,
    Port,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)
from load import read_all

MakeCluster = Callable[..., Cluster]


def put(key: str, value: object) -> dict[str, object]:
    return {"Put": {"key": key, "value": value}}


def get(key: str) -> dict[str, object]:
    return {"Get": {"key": key}}


# --- creating and adding ----------------------------------------------------------------------


def test_create_makes_a_cluster_of_one_that_serves(make_cluster: MakeCluster) -> None:
    one = make_cluster(1, create=False)[0]
    assert one.state()["node_id"] is None
    assert one.result("CreateCluster") == {"members": [one.address]}
    assert result_of(one.apply(put("a", 1))) is None
    assert result_of(one.apply(put("a", 2))) == 1
    assert result_of(one.apply(get("a"), "Query")) == 2
    state = one.state()
    assert state["role"] == "Leader"
    assert state["leader"] == one.address
    assert state["node_id"] is not None
    assert state["cluster_id"]


def test_create_twice_is_100_and_changes_nothing(make_cluster: MakeCluster) -> None:
    one = make_cluster(1)[0]
    one.apply(put("a", 1))
    before = one.state()
    assert code_of(one.rpc("CreateCluster")) == 100
    after = one.state()
    assert after["cluster_id"] == before["cluster_id"]
    assert result_of(one.apply(get("a"), "Query")) == 1


def test_create_takes_the_election_timeouts(make_cluster: MakeCluster) -> None:
    one = make_cluster(1, election=(123, 456))[0]
    system = one.state()["machines"]["system"]
    assert system["min_election_timeout_ms"] == 123
    assert system["max_election_timeout_ms"] == 456


def test_members_stand_in_joining_order_on_every_member(cluster: Cluster) -> None:
    cluster.wait_converged()
    addresses = [m.address for m in cluster]
    for member in cluster:
        assert member.members == addresses
    assert len({m.state()["node_id"] for m in cluster}) == 3
    assert len({m.state()["cluster_id"] for m in cluster}) == 1


def test_any_member_adds(make_cluster: MakeCluster) -> None:
    """M11: a new voter without its log does not stall the commits of a cluster of one."""
    cluster = make_cluster(2)
    third = cluster.new_member()
    follower = cluster.others(cluster.wait_leader(cluster.all[:2]), third)[0]
    added = follower.result("AddServer", {"addr": third.address})
    assert added == {"members": [m.address for m in cluster]}
    cluster.put("a", 1, third)
    cluster.wait_converged()


def test_adding_a_member_again_is_101(cluster: Cluster) -> None:
    for member in cluster:
        again = member.rpc("AddServer", {"addr": cluster[1].address})
        assert code_of(again) == 101
    assert cluster[0].members == [m.address for m in cluster]


def test_before_there_is_a_cluster_everything_is_102(make_cluster: MakeCluster) -> None:
    one = make_cluster(1, create=False)[0]
    assert code_of(one.rpc("AddServer", {"addr": "127.0.0.1:1"})) == 102
    assert code_of(one.rpc("RemoveServer", {"addr": "127.0.0.1:1"})) == 102
    assert code_of(one.rpc("TakeSnapshot")) == 102
    for kind in ("Command", "Query", "LocalQuery"):
        refused = one.apply(get("a"), kind)
        assert code_of(refused) == 102
    assert one.apply(put("a", 1))["error"]["data"]["outcome"] == "not_applied"
    assert one.state()["role"] == "Follower"


def test_adding_a_dead_address_is_111_and_changes_nothing(cluster: Cluster) -> None:
    """M11: an address that does not answer costs the cluster nothing, and no quorum."""
    dead = Port()
    before = {m: m.members for m in cluster}
    response = cluster[0].rpc("AddServer", {"addr": dead.address}, timeout=30.0)
    assert code_of(response) == 111
    assert cluster.put("a", 1) is None
    assert {m: m.members for m in cluster} == before
    # Nothing of the attempt is in the way of the next change.
    fourth = cluster.add()
    assert cluster.wait_leader().members[-1] == fourth.address
    dead.release()


def test_adding_an_address_that_says_nothing_is_111(cluster: Cluster) -> None:
    """The address takes the connection and then stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        response = cluster[0].rpc("AddServer", {"addr": address}, timeout=60.0)
    assert code_of(response) == 111
    assert cluster[0].members == [m.address for m in cluster]
    assert cluster.put("a", 1) is None


def test_a_member_of_another_cluster_is_not_taken_over(make_cluster: MakeCluster) -> None:
    """M14: a server of another cluster is refused; both clusters stay as they were."""
    ours, theirs = make_cluster(1), make_cluster(1)
    theirs.put("theirs", 1)
    before = theirs[0].state()
    response = ours[0].rpc("AddServer", {"addr": theirs[0].address})
    assert "error" in response
    assert ours[0].members == [ours[0].address]
    after = theirs[0].state()
    assert after["cluster_id"] == before["cluster_id"]
    assert after["current_term"] == before["current_term"]
    assert theirs[0].members == [theirs[0].address]
    assert ours.put("ours", 1) is None
    assert result_of(theirs[0].apply(get("theirs"), "Query")) == 1


# --- removing ---------------------------------------------------------------------------------


def assert_removed(member: Member) -> None:
    """M10: a removed member learns of it, says 102 and does not lead."""

    def knows() -> bool:
        return code_of(member.apply(get("a"), "Query")) == 102

    wait_for(f"{member} knows that it was removed", knows)
    assert code_of(member.apply(put("a", 9))) == 102
    assert member.state()["role"] != "Leader"


def test_remove_a_follower(cluster: Cluster) -> None:
    """M10: the removed member learns of it; V12: it does not disturb those who stay."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    gone, other = cluster.others(leader)
    left = other.result("RemoveServer", {"addr": gone.address})["members"]
    assert left == [m.address for m in cluster if m is not gone]
    assert_removed(gone)
    term = leader.state()["current_term"]
    for value in range(2, 20):
        assert cluster.put("a", value, leader) == value - 1
    # The removed server went on running all the while; nobody was unseated.
    assert leader.state()["role"] == "Leader"
    assert leader.state()["current_term"] == term
    cluster.wait_converged([leader, other])


def test_remove_the_leader(cluster: Cluster) -> None:
    """M8: a leader that is removed commits its own removal, answers and steps down."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    rest = cluster.others(leader)
    left = leader.result("RemoveServer", {"addr": leader.address})["members"]
    assert left == [m.address for m in cluster if m is not leader]
    new = cluster.wait_leader(rest)
    assert new is not leader
    assert cluster.put("a", 2, rest[0]) == 1
    assert cluster.put("a", 3, rest[1]) == 2
    assert_removed(leader)
    cluster.wait_converged(rest)


def test_remove_the_leader_of_two(make_cluster: MakeCluster) -> None:
    """M9: removing the leader of two does not dead-lock the other."""
    cluster = make_cluster(2)
    leader = cluster.wait_leader()
    (other,) = cluster.others(leader)
    cluster.put("a", 1)
    result = other.result("RemoveServer", {"addr": leader.address})
    assert result == {"members": [other.address]}
    assert cluster.put("a", 2, other) == 1
    assert other.state()["role"] == "Leader"
    leader.kill()
    assert cluster.put("a", 3, other) == 2


def test_removing_an_unknown_address_is_102(cluster: Cluster) -> None:
    response = cluster[1].rpc("RemoveServer", {"addr": "127.0.0.1:1"})
    assert code_of(response) == 102
    assert cluster[0].members == [m.address for m in cluster]


def test_remove_a_dead_member_and_add_another(cluster: Cluster) -> None:
    """Replacing a member that will not come back."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    dead = cluster.others(leader)[0]
    dead.kill()
    leader.result("RemoveServer", {"addr": dead.address})
    new = cluster.add()
    cluster.wait_converged()
    assert result_of(new.apply(get("a"), "Query")) == 1
    assert dead.address not in leader.members


def test_two_removals_at_once_on_two_members(make_cluster: MakeCluster) -> None:
    """M2, M18: two changes at the same time do not both slip through half done."""
    cluster = make_cluster(5)
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    one, two, *rest = cluster.others(leader)
    responses: dict[str, object] = {}

    def remove(through: Member, gone: Member) -> None:
        responses[gone.address] = through.rpc("RemoveServer", {"addr": gone.address})

    threads = [
        threading.Thread(target=remove, args=(rest[0], one)),
        threading.Thread(target=remove, args=(rest[1], two)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    removed = [a for a, r in responses.items() if code_of(r) is None]
    kept = [m for m in cluster if m.address not in removed]
    cluster.wait_leader(kept)
    assert cluster.put("a", 2, leader) == 1
    cluster.wait_converged(kept)
    for member in kept:
        assert sorted(member.members) == sorted(m.address for m in kept)


# --- commands and reads -----------------------------------------------------------------------


def test_commands_on_every_member(cluster: Cluster) -> None:
    """A follower passes a command on; the member that took it answers from its own machine."""
    for at, member in enumerate(cluster):
        assert result_of(member.apply(put("a", at))) == (at - 1 if at else None)
    for member in cluster:
        assert result_of(member.apply({"Delete": {"key": "a"}})) == (
            2 if member is cluster[0] else None
        )
    cluster.wait_converged()
    assert cluster.assert_logs_identical() >= 6


def test_a_query_sees_every_command_that_was_answered_anywhere(cluster: Cluster) -> None:
    """Linearizable: after an answer on one member, a query on any other sees the command."""
    connections = [m.connect() for m in cluster]
    for turn in range(60):
        writer = connections[turn % 3]
        result_of(writer.apply(put("a", turn)))
        for reader in connections:
            assert result_of(reader.apply(get("a"), "Query")) == turn
    for connection in connections:
        connection.close()


def test_a_local_query_sees_what_its_member_answered_before(cluster: Cluster) -> None:
    """Never older than an answer that the same member gave before."""
    for member in cluster:
        with member.connect() as connection:
            for turn in range(60):
                key = f"{member.name}-{turn}"
                result_of(connection.apply(put(key, turn)))
                assert result_of(connection.apply(get(key), "LocalQuery")) == turn


def test_a_local_query_works_without_a_quorum(cluster: Cluster) -> None:
    cluster.put("a", 1)
    cluster.wait_converged()
    survivor, *others = cluster
    for other in others:
        other.kill()
    assert result_of(survivor.apply(get("a"), "LocalQuery")) == 1


def test_a_query_writes_nothing(cluster: Cluster) -> None:
    """A query costs no log entry."""
    cluster.put("a", 1)
    before = cluster.wait_converged()
    for member in cluster:
        for _ in range(20):
            assert result_of(member.apply(get("a"), "Query")) == 1
    after = cluster.wait_converged()
    assert after["current_term"] == before["current_term"]
    assert after["last_log_index"] == before["last_log_index"]


def test_a_command_sent_as_a_query_is_103_and_changes_nothing(cluster: Cluster) -> None:
    cluster.put("a", 1)
    before = cluster.wait_converged()
    for member in cluster:
        for kind in ("Query", "LocalQuery"):
            assert code_of(member.apply(put("a", 2), kind)) == 103
    assert cluster.wait_converged()["machines"] == before["machines"]


def test_list_and_both_spellings(cluster: Cluster) -> None:
    assert result_of(cluster[1].apply({"Put": ["short", 1]})) is None
    assert result_of(cluster[2].apply({"Put": {"key": "long", "value": 2, "more": 3}})) is None
    assert result_of(cluster[0].apply({"Get": "long"}, "Query")) == 2
    assert result_of(cluster[0].apply({"Get": {"key": "short", "x": 0}}, "Query")) == 1
    for spelling in ("List", {"List": {}}):
        assert sorted(result_of(cluster[0].apply(spelling, "Query"))) == ["long", "short"]
    assert result_of(cluster[0].apply({"Delete": "short"})) == 1
    assert result_of(cluster[0].apply({"Delete": {"key": "long"}})) == 2
    assert result_of(cluster[0].apply("List", "Query")) == []


# --- without a quorum -------------------------------------------------------------------------


def test_without_a_quorum_requests_end_in_108_and_the_state_still_answers(
    cluster: Cluster,
) -> None:
    """V13: a leader without a quorum stops leading. Every request is answered all the same."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    for other in cluster.others(leader):
        other.kill()
    wait_for("the leader steps down", lambda: leader.state()["role"] != "Leader")
    with leader.connect() as connection:
        connection.send(
            apply_request(put("a", 2), "Command", "command"),
            apply_request(get("a"), "Query", "query"),
            request("AddServer", {"addr": "127.0.0.1:1"}, "add"),
            request("RemoveServer", {"addr": leader.address}, "remove"),
            request("GetServerState", None, "state"),
        )
        responses = {r["id"]: r for r in (connection.receive() for _ in range(5))}
    assert responses["state"]["result"]["role"] != "Leader"
    assert code_of(responses["command"]) == 108
    assert responses["command"]["error"]["data"]["outcome"] == "not_applied"
    assert code_of(responses["query"]) == 108
    assert code_of(responses["add"]) == 108
    assert code_of(responses["remove"]) == 108
    # The refused command is not there when the cluster is whole again.
    for member in cluster:
        if not member.running:
            member.restart()
    cluster.wait_leader()
    assert result_of(leader.apply(get("a"), "Query")) == 1


# --- in memory --------------------------------------------------------------------------------


def test_members_in_memory(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, durable=False)
    for at, member in enumerate(cluster):
        assert result_of(member.apply(put(f"k{at}", at))) is None
    cluster.wait_converged()
    leader = cluster.wait_leader()
    leader.kill()
    cluster.wait_leader()
    survivor = cluster.running[0]
    for at in range(3):
        assert result_of(survivor.apply(get(f"k{at}"), "Query")) == at
    assert "memory" in survivor.tail().lower()  # it says so when it starts


def test_a_member_in_memory_that_restarts_empty_is_brought_back(
    make_cluster: MakeCluster,
) -> None:
    """M13: it does not vote as if it were itself; the leader brings it back by itself."""
    cluster = make_cluster(3, durable=False)
    cluster.put("a", 1)
    cluster.wait_converged()
    leader = cluster.wait_leader()
    member = cluster.others(leader)[0]
    member.restart()
    cluster.put("b", 2, leader)
    cluster.wait_converged()
    assert read_all(member, ["a", "b"]) == {"a": 1, "b": 2}
    wait_for(
        "it is a full member again",
        lambda: (
            sorted(member.members) == sorted(m.address for m in cluster)
            and member.state()["role"] == "Follower"
        ),
    )
    # A full member: with it, the cluster lives through the loss of the other one.
    other = cluster.others(leader, member)[0]
    other.kill()
    cluster.put("c", 3, leader)
    assert result_of(member.apply(get("c"), "Query")) == 3


def test_a_member_with_a_wiped_disk_is_brought_back(cluster: Cluster) -> None:
    """M13: the same with a data directory that was emptied."""
    cluster.put("a", 1)
    cluster.wait_converged()
    leader = cluster.wait_leader()
    member = cluster.others(leader)[0]
    member.kill()
    assert member.data is not None
    for file in member.data.iterdir():
        file.unlink()
    member.restart()
    cluster.put("b", 2, leader)
    cluster.wait_converged()
    assert read_all(member, ["a", "b"]) == {"a": 1, "b": 2}


# --- every request is answered ----------------------------------------------------------------


def test_pipelined_requests_on_a_follower_are_all_answered_once(cluster: Cluster) -> None:
    follower = cluster.others(cluster.wait_leader())[0]
    count = 3000
    with follower.connect() as connection:
        sent = threading.Thread(
            target=connection.send,
            args=[apply_request(put(f"k{i}", i), "Command", i) for i in range(count)],
        )
        sent.start()
        answers = [connection.receive() for _ in range(count)]
        sent.join()
        assert connection.is_silent(0.1)
    assert sorted(a["id"] for a in answers) == list(range(count))
    assert all(a["result"] is None for a in answers)
    cluster.wait_converged()


def test_requests_of_a_client_that_leaves_harm_nobody(cluster: Cluster) -> None:
    for member in cluster:
        connection = member.connect()
        connection.send(*(apply_request(put("gone", i)) for i in range(200)))
        connection.close()
    assert cluster.put("a", 1) is None
    cluster.wait_converged()
    cluster.assert_logs_identical()


def test_an_answer_for_everything_while_the_leader_changes(cluster: Cluster) -> None:
    """Requests in flight on a follower when the leader dies: each is answered exactly once.

    A change of leader alone does not make a result unknown: no 107.
    """
    leader = cluster.wait_leader()
    follower = cluster.others(leader)[0]
    with Connection(follower.address) as connection:
        for turn in range(5):
            connection.send(
                *(apply_request(put(f"{turn}-{i}", i), "Command", i) for i in range(200))
            )
            if turn == 2:
                leader.kill()
            ids = []
            for _ in range(200):
                try:
                    response = connection.receive(ANSWER_SECONDS)
                except Closed:
                    raise AssertionError("the follower closed the connection") from None
                assert code_of(response) in (None, 106, 108, 110), response
                ids.append(response["id"])
            assert sorted(ids) == list(range(200))
