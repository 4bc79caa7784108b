"""Machines that raise, refuse, return nonsense or take their time; what a context offers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, apply_request, code_of, result_of, wait_for

MakeCluster = Callable[..., Cluster]


def running(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("machines.py")), name]


# --- what apply may do ------------------------------------------------------------------------


@pytest.fixture
def faulty(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(3, command=running("faulty"))


def test_an_exception_is_109_and_the_log_goes_on(faulty: Cluster) -> None:
    """D9: an exception in apply is an outcome, the same on every member."""
    assert result_of(faulty[0].apply({"add": 1})) == 1
    for at, member in enumerate(faulty):
        error = member.apply({"raise": 10})["error"]
        assert error["code"] == 109
        assert error["message"] == "Machine error"
        assert error["data"]["type"] == "KeyError"
        assert "no such thing" in error["data"]["reason"]
        assert error["data"]["outcome"] == "applied"
        # What it did before it raised was done, and on every member.
        assert result_of(member.apply({"add": 100})) == 1 + 110 * (at + 1)
    faulty.wait_converged()
    for member in faulty:
        assert result_of(member.apply("total", "LocalQuery")) == 331
        assert result_of(member.apply("calls", "LocalQuery")) == 7


def test_an_exception_is_the_same_after_a_restart(faulty: Cluster) -> None:
    """D7: the log is replayed with its exceptions, each entry once."""
    faulty[0].apply({"add": 1})
    assert code_of(faulty[1].apply({"raise": 10})) == 109
    faulty.wait_converged()
    for member in faulty:
        member.restart()
    faulty.wait_leader()
    faulty.wait_converged()
    for member in faulty:
        assert result_of(member.apply("total", "Query")) == 11
        assert result_of(member.apply("calls", "LocalQuery")) == 2


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("recurse", "RecursionError"),
        ("exit", "SystemExit"),
        ("unprintable", "Unprintable"),
        ("no_such_verb", "AttributeError"),
    ],
)
def test_no_exception_stops_the_server(make_cluster: MakeCluster, verb: str, name: str) -> None:
    """D9: not even those that would end a process."""
    one = make_cluster(1, command=running("faulty"))[0]
    error = one.apply({verb: 1})["error"]
    assert error["code"] == 109
    assert error["data"]["type"] == name
    assert result_of(one.apply({"add": 1})) == 1
    assert code_of(one.apply({verb: 1}, "Query")) == 109
    assert result_of(one.apply({"add": 1})) == 2


def test_refused_input_is_103(faulty: Cluster) -> None:
    for member in faulty:
        error = member.apply({"refuse": "not on a Sunday"})["error"]
        assert error["code"] == 103
        assert error["message"] == "Invalid machine input"
        assert "not on a Sunday" in error["data"]["reason"]
        assert error["data"]["outcome"] == "applied"
        assert code_of(member.apply({"refuse": "x"}, "Query")) == 103
    assert result_of(faulty[0].apply({"add": 1})) == 1
    faulty.wait_converged()


@pytest.mark.parametrize("verb", ["object", "nan", "infinity", "circle"])
def test_output_that_is_no_json_is_104(make_cluster: MakeCluster, verb: str) -> None:
    one = make_cluster(1, command=running("faulty"))[0]
    error = one.apply({verb: 1})["error"]
    assert error["code"] == 104
    assert error["message"] == "Invalid machine output"
    assert error["data"]["reason"]
    assert error["data"]["outcome"] == "applied"
    assert result_of(one.apply("calls", "Query")) == 1


def test_no_output_is_105(faulty: Cluster) -> None:
    for member in faulty:
        error = member.apply({"nothing": 1})["error"]
        assert error["code"] == 105
        assert error["message"] == "No machine output"
        assert error["data"]["outcome"] == "applied"
    faulty.wait_converged()
    assert result_of(faulty[0].apply("calls", "Query")) == 3


# --- a machine that takes its time ------------------------------------------------------------


def assert_no_election(cluster: Cluster, block: dict[str, Any], seconds: float) -> None:
    """While every machine is blocked: no election, the state answers, nothing is lost."""
    cluster.command_until_done({"add": 1})
    before = cluster.wait_converged()
    leader = cluster.wait_leader()
    connections = {m: m.connect() for m in cluster}
    started = time.monotonic()
    connections[leader].send(apply_request(block, "Command", "block"))
    wait_for(
        "the block is committed",
        lambda: leader.state()["commit_index"] > before["commit_index"],
        pause=0.005,
    )
    for member, connection in connections.items():
        connection.send(apply_request({"add": 1}, "Command", f"command {member.name}"))
        connection.send(apply_request({"add": 0}, "Query", f"query {member.name}"))

    asked = 0
    while True:
        for member in cluster:
            state = member.state(timeout=2.0)
            assert state["current_term"] == before["current_term"], f"an election: {state}"
            assert state["leader"] == leader.address
            assert (state["role"] == "Leader") == (member is leader)
        try:
            first = connections[leader].receive(0.1)
            break
        except TimeoutError:
            asked += 1
    took = time.monotonic() - started
    assert took >= seconds, f"answered after {took:.1f} s: it was not blocked"
    assert asked >= seconds, "the state did not answer in time"

    responses = {first["id"]: first}
    for member, connection in connections.items():
        for _ in range(3 if member is leader else 2):
            if connection is connections[leader] and len(responses) == 3:
                break
            response = connection.receive()
            responses[response["id"]] = response
        connection.close()
    assert result_of(responses["block"]) == 1
    done = 0
    for name, response in responses.items():
        assert code_of(response) in (None, 110), response
        done += name.startswith("command") and code_of(response) is None
    cluster.wait_converged()
    for member in cluster:
        assert result_of(member.apply({"add": 0}, "LocalQuery")) == 1 + done
        assert member.state()["current_term"] == before["current_term"]


@pytest.mark.parametrize("verb", ["sleep", "hold", "spin"])
def test_a_machine_that_blocks_costs_no_election(make_cluster: MakeCluster, verb: str) -> None:
    """S9: no sleep, no C call that holds the GIL and no busy loop delays a heartbeat."""
    cluster = make_cluster(3, command=running("slow"), election=(250, 500))
    assert_no_election(cluster, {verb: 6.0}, 6.0)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sleep", "hold"])
def test_a_machine_that_blocks_for_half_a_minute(make_cluster: MakeCluster, verb: str) -> None:
    cluster = make_cluster(3, command=running("slow"), election=(250, 500))
    assert_no_election(cluster, {verb: 30.0}, 30.0)


def test_a_slow_follower_holds_nobody_up(make_cluster: MakeCluster) -> None:
    """A query that blocks one member's machine: the others go on, without an election."""
    cluster = make_cluster(3, command=running("slow"))
    cluster.command_until_done({"add": 1})
    before = cluster.wait_converged()
    leader = cluster.wait_leader()
    slow = cluster.others(leader)[0]
    with slow.connect() as connection:
        connection.send(apply_request({"sleep": 3.0}, "LocalQuery"))
        for total in range(2, 20):
            assert result_of(leader.apply({"add": 1}, timeout=30.0)) == total
        assert slow.state()["current_term"] == before["current_term"]
        assert result_of(connection.receive()) in range(1, 20)
    cluster.wait_converged()


# --- the context ------------------------------------------------------------------------------


def test_the_context_is_the_same_on_every_member(make_cluster: MakeCluster) -> None:
    """Index, term, time and randomness come with the entry, also when the log is replayed."""
    cluster = make_cluster(3, command=running("context"))
    outputs = [result_of(cluster[i % 3].apply("go")) for i in range(12)]
    assert {o[0] for o in outputs} == {"Command"}
    indexes = [o[1] for o in outputs]
    assert indexes == sorted(set(indexes))
    times = [o[3] for o in outputs]
    assert times == sorted(times)
    assert len({o[4] for o in outputs}) == 12  # another number for every index
    state = cluster.wait_converged()  # compares the machines of all members
    assert state["last_log_index"] == indexes[-1]
    for member in cluster:
        member.restart()
    cluster.wait_leader()
    cluster.wait_converged()
    output = result_of(cluster[1].apply("go"))
    assert output[3] >= times[-1]
    assert output[2] > outputs[-1][2]
    for kind in ("Query", "LocalQuery"):
        query = result_of(cluster[2].apply("go", kind))
        assert query[0] == kind
        assert query[1] >= output[1] or kind == "LocalQuery"


def test_time_is_the_time_of_day(make_cluster: MakeCluster) -> None:
    """ctx.time follows the leader's clock: seconds since 1970."""
    one = make_cluster(1, command=running("context"))[0]
    assert abs(result_of(one.apply("go"))[3] - time.time()) < 60


def test_a_snapshot_format_of_ones_own(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, command=running("own"))
    for line in ("one", "two", "three"):
        cluster.command_until_done(line)
    cluster.wait_converged()
    for member in cluster:
        member.result("TakeSnapshot")
    cluster.command_until_done("four")
    newcomer = cluster.add()
    cluster.wait_converged()
    assert result_of(newcomer.apply(None, "LocalQuery")) == ["one", "two", "three", "four"]
    for member in cluster:
        member.restart()
    cluster.wait_leader()
    for member in cluster:
        assert result_of(member.apply(None, "Query")) == ["one", "two", "three", "four"]
