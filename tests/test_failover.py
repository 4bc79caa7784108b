"""Leaders die, hang and come back; what was acknowledged stays and nobody reads the past."""

from __future__ import annotations

from collections.abc import Callable

from cluster import (
    Cluster,
    apply_request,
    code_of,
    result_of,
    wait_for,
)
from load import Load

MakeCluster = Callable[..., Cluster]


def put(key: str, value: object) -> dict[str, object]:
    return {"Put": {"key": key, "value": value}}


def get(key: str) -> dict[str, object]:
    return {"Get": {"key": key}}


def test_leader_killed_ten_times_under_load(cluster: Cluster) -> None:
    """V2, V4, C5, C6, D7, D8: every acknowledged Put is there at the end, applied once."""
    load = Load(cluster)
    for _ in range(10):
        load.wait_more(100)
        leader = cluster.wait_leader()
        leader.kill()
        cluster.wait_leader()
        load.wait_more(100)
        leader.restart()
    load.wait_more(100)
    load.stop()
    cluster.wait_converged()
    load.check(cluster)
    cluster.assert_logs_identical()
    assert load.count > 2000


def test_all_killed_under_load(cluster: Cluster) -> None:
    """V2, D7: the whole cluster loses power at once, in the middle of writing, three times."""
    load = Load(cluster)
    for _ in range(3):
        load.wait_more(200)
        for member in cluster:
            member.kill()
        for member in cluster:
            member.start()
        for member in cluster:
            member.wait_ready()
        cluster.wait_leader()
    load.wait_more(100)
    load.stop()
    cluster.wait_converged()
    load.check(cluster)
    cluster.assert_logs_identical()


def test_followers_killed_under_load(cluster: Cluster) -> None:
    """The loss of one follower is no loss of service: no request fails for it."""
    load = Load(cluster)
    leader = cluster.wait_leader()
    term = leader.state()["current_term"]
    for turn in range(4):
        load.wait_more(100)
        follower = cluster.others(leader)[turn % 2]
        follower.kill()
        load.wait_more(100)
        follower.restart()
    load.stop()
    assert leader.state()["current_term"] == term
    assert not load.refused
    cluster.wait_converged()
    load.check(cluster)
    cluster.assert_logs_identical()


def test_a_leader_that_was_stopped_serves_no_stale_query(cluster: Cluster) -> None:
    """L4, L3: a pause of any length between the quorum check and the answer reads no past."""
    for turn in range(3):
        cluster.put("a", f"old {turn}")
        cluster.wait_converged()
        leader = cluster.wait_leader()
        rest = cluster.others(leader)
        with leader.connect() as early:
            result_of(early.apply(get("a"), "Query"))
            leader.pause()
            cluster.wait_leader(rest)
            cluster.put("a", f"new {turn}", rest[0])
            # Sent after the answer to the Put: an old value would be a stale read. The kernel
            # takes connection and request while the process stands still.
            with leader.connect() as late:
                for connection in (early, late):
                    connection.send(apply_request(get("a"), "Query"))
                leader.resume()
                for connection in (early, late):
                    response = connection.receive()
                    if code_of(response) is None:
                        assert response["result"] == f"new {turn}"
                    else:
                        assert code_of(response) in (106, 108), response
        cluster.wait_leader()
        cluster.wait_converged()


def test_a_stopped_leader_confirms_no_command_of_its_past(cluster: Cluster) -> None:
    """A command that reached a hung leader is applied once or not at all."""
    cluster.put("a", 0)
    leader = cluster.wait_leader()
    rest = cluster.others(leader)
    with leader.connect() as connection:
        leader.pause()
        connection.send(apply_request(put("b", 1)))
        cluster.wait_leader(rest)
        cluster.put("a", 1, rest[0])
        leader.resume()
        response = connection.receive()
        assert code_of(response) in (None, 106, 108), response
    cluster.wait_converged()
    present = result_of(rest[0].apply(get("b"), "Query"))
    assert present == (1 if code_of(response) is None else None)


def test_a_longer_log_of_an_older_term_wins_no_election(cluster: Cluster) -> None:
    """V1: votes compare (last term, last index). The seed's own fault, step by step.

    The leader is left alone with a long tail that nobody else has; the others go on in a newer
    term with a shorter log. With the index alone, the old leader would be elected and its tail
    would overwrite what they committed.
    """
    cluster.put("a", 0)
    cluster.wait_converged()
    old = cluster.wait_leader()
    one, two = cluster.others(old)
    one.kill()
    two.kill()
    start = old.state()["last_log_index"]
    with old.connect() as connection:
        connection.send(*(apply_request(put("tail", i), "Command", i) for i in range(50)))
        wait_for(
            "the lonely leader has written its tail",
            lambda: old.state()["last_log_index"] >= start + 50,
        )
        old.kill()
    one.restart()
    two.restart()
    cluster.wait_leader([one, two])
    cluster.put("a", "committed", one)
    cluster.wait_converged([one, two])
    assert one.state()["last_log_index"] < start + 50
    two.kill()
    old.restart()
    assert cluster.wait_leader([old, one]) is one
    assert result_of(old.apply(get("a"), "Query")) == "committed"
    two.restart()
    cluster.wait_converged()
    cluster.assert_logs_identical()


def test_a_follower_that_hung_catches_up(cluster: Cluster) -> None:
    """C18: what was lost in flight to it is sent again; V12: it unseats nobody."""
    leader = cluster.wait_leader()
    follower = cluster.others(leader)[0]
    load = Load(cluster, workers=2)
    load.members = [leader]
    follower.pause()
    load.wait_more(500)
    term = leader.state()["current_term"]
    follower.resume()
    load.wait_more(100)
    load.stop()
    cluster.wait_converged()
    assert leader.state()["current_term"] == term
    load.check(cluster)
    cluster.assert_logs_identical()
