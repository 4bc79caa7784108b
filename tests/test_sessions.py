"""Clients' sessions: a command that is sent again takes effect once and gets the first answer.

The rules are tested in C, with shrunk limits; here, real clusters.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cbuild import build, run
from cluster import (
    ANSWER_SECONDS,
    Cluster,
    Member,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)

import raftpico

MakeCluster = Callable[..., Cluster]

SESSIONS = [
    "csrc/node/sessions.c",
    *(f"csrc/base/{name}.c" for name in ("buffer", "memory", "random", "status")),
]
SHRUNK = ["-DCLIENT_SESSIONS_MAX=4u", "-DSESSION_ANSWERS_BYTES_MAX=131000ull"]


def machine(name: str) -> tuple[str, ...]:
    """The command line of one of the machines that misbehave."""
    return (sys.executable, str(Path(__file__).with_name("machines.py")), name)


def test_c() -> None:
    program = build("test_sessions", ["tests/c/test_sessions.c", *SESSIONS], flags=SHRUNK)
    assert run(program) == "ok\n"


# --- real clusters ----------------------------------------------------------------------------


def send(
    member: Member, value: Any, seq: int, session: str = "a", **options: Any
) -> dict[str, Any]:
    """The whole response to a command in a session."""
    params = {"kind": "Command", "input": value, "session": session, "seq": seq, **options}
    response: dict[str, Any] = member.rpc("Apply", params)
    return response


def calls(member: Member) -> int:
    """How many commands the machine has been given."""
    count: int = result_of(member.apply("calls", "Query"))
    return count


@pytest.fixture
def faulty(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(3, command=machine("faulty"))


def test_a_repeat_gets_the_first_answer_from_any_member(faulty: Cluster) -> None:
    """D8: results and errors of the machine, byte for byte, and the index of the first."""
    inputs = [{"add": 5}, {"raise": 1}, {"refuse": "no"}, {"nothing": 0}, {"object": 0}]
    for seq, value in enumerate(inputs, 1):
        answers = [send(member, value, seq, index=True) for member in faulty for _ in "12"]
        assert answers[1:] == answers[:-1]
        error = answers[0].get("error", {"data": answers[0].get("result")})
        assert error["data"]["index"] > 0
        assert code_of(answers[0]) == [None, 109, 103, 105, 104][seq - 1]
    assert {calls(member) for member in faulty} == {len(inputs)}
    faulty.wait_converged()


def test_what_is_no_repeat_is_told_so(faulty: Cluster) -> None:
    """A number that was passed, and one in a session that nobody opened: nothing is applied."""
    for number in (1, 3):
        result_of(send(faulty[0], {"add": 1}, number))
    stale = send(faulty[1], {"add": 1}, 2)
    assert stale["error"] == {
        "code": 114,
        "message": "Sequence number passed",
        "data": {"outcome": "unknown", "last_seq": 3},
    }
    unknown = send(faulty[2], {"add": 1}, 2, session="b")
    assert unknown["error"]["code"] == 113
    assert unknown["error"]["message"] == "Session expired or unknown"
    assert unknown["error"]["data"]["outcome"] == "unknown"
    assert calls(faulty[0]) == 2
    # One name, however it is written.
    same = b'{"jsonrpc":"2.0","id":1,"method":"Apply","params":{"kind":"Command","input":'
    with faulty[1].connect() as connection:
        connection.send_bytes(same + b'{"add":1},"session":"\\u0061","seq":3}}\n')
        assert connection.receive()["result"] == 2


def test_a_repeat_waits_for_the_first(make_cluster: MakeCluster) -> None:
    """While the first is with the machine, on the same member and on others."""
    cluster = make_cluster(3, command=machine("slow"))
    connections = [member.connect() for member in (*cluster, *cluster)]
    params = {"kind": "Command", "input": {"sleep": 0.5}, "session": "a", "seq": 1}
    for connection in connections:
        connection.send(request("Apply", {**params, "index": True}))
    answers = [connection.receive() for connection in connections]
    for connection in connections:
        connection.close()
    assert answers[1:] == answers[:-1]
    assert answers[0]["result"]["output"] == 0


def test_a_repeat_after_a_change_of_leader(faulty: Cluster) -> None:
    first = send(faulty[0], {"add": 5}, 1, index=True)
    leader = faulty.wait_leader()
    leader.kill()
    others = [member for member in faulty if member is not leader]
    assert [send(member, {"add": 5}, 1, index=True) for member in others] == [first, first]
    leader.restart()
    assert send(leader, {"add": 5}, 1, index=True) == first
    assert {calls(member) for member in faulty} == {1}


def test_a_repeat_after_a_snapshot_and_a_restart(faulty: Cluster) -> None:
    """The sessions stand in the snapshot, a line each, and come back with it."""
    first = [send(faulty[0], {"add": n}, 1, session=f"s{n}", index=True) for n in range(50)]
    failed = send(faulty[0], {"raise": 1}, 2, session="s0")
    for member in faulty:
        member.result("TakeSnapshot")
        member.restart()
    for member in faulty:
        for n in range(1, 50):
            again = send(member, {"add": n}, 1, session=f"s{n}", index=True)
            assert again == first[n]
        assert send(member, {"raise": 1}, 2, session="s0") == failed
        assert code_of(send(member, {"add": 0}, 1, session="s0")) == 114
    assert {calls(member) for member in faulty} == {51}
    assert faulty[0].data is not None
    snapshots = [path.read_text().splitlines() for path in faulty[0].data.glob("snapshot-*")]
    assert [line.startswith('{"session":') for line in snapshots[0]].count(True) == 50


def test_a_repeat_after_an_installed_snapshot(make_cluster: MakeCluster) -> None:
    """A member that missed everything has the sessions from the leader's snapshot."""
    cluster = make_cluster(3, command=machine("compact"))
    first = send(cluster[0], {"add": 5}, 1, index=True)
    late = next(member for member in cluster if member is not cluster.wait_leader())
    late.kill()
    leader = cluster.wait_leader()
    with leader.connect() as connection:
        for _ in range(11):  # past what is kept behind a snapshot
            connection.send(*(apply_request({"add": 1}) for _ in range(1000)))
            for _ in range(1000):
                connection.receive()
    last = send(leader, {"add": 1}, 2, index=True)
    leader.result("TakeSnapshot")
    late.restart()
    wait_for("installed", lambda: late.state()["snapshot"]["index"] > 0)
    assert send(late, {"add": 1}, 2, index=True) == last
    assert code_of(send(late, {"add": 5}, 1)) == 114
    assert last["result"]["index"] > first["result"]["index"] + 11000
    cluster.wait_converged()


def test_an_answer_that_is_too_large_is_not_kept(cluster: Cluster) -> None:
    """Then it is told that the command was applied, which is what matters."""
    large = "x" * 100_000
    assert send(cluster[0], {"Put": ["k", large]}, 1)["result"] is None
    assert send(cluster[0], {"Put": ["k", 1]}, 2)["result"] == large
    repeated = send(cluster[1], {"Put": ["k", 1]}, 2)
    assert repeated["error"] == {
        "code": 115,
        "message": "Applied, but the answer is no longer kept",
        "data": {"outcome": "applied"},
    }
    assert send(cluster[2], {"Put": ["k", 2]}, 3)["result"] == 1


def test_too_many_sessions(make_cluster: MakeCluster) -> None:
    """Sessions are bounded; a young one does not make way for a new one."""
    cluster = make_cluster(1, durable=False)
    limit = 16384
    with cluster[0].connect() as connection:

        def open_session(number: int) -> None:
            params = {"kind": "Command", "input": {"Put": ["k", number]}}
            connection.send(
                request("Apply", {**params, "session": f"s{number}", "seq": 1}, number)
            )

        for start in range(0, limit, 1024):
            for number in range(start, start + 1024):
                open_session(number)
            for _ in range(1024):
                result_of(connection.receive())
        open_session(limit)
        full = connection.receive()["error"]
        assert full["code"] == 110
        assert full["data"]["outcome"] == "not_applied"
        assert full["data"]["retry_after_ms"] > 0
        open_session(0)
        assert connection.receive() == {"jsonrpc": "2.0", "id": 0, "result": None}
        assert connection.apply({"Get": "k"})["result"] == limit - 1


def test_the_clients_commands_take_effect_once(faulty: Cluster) -> None:
    """Leaders are killed under a client that only counts; it never sees an error."""
    addresses = [member.address for member in faulty]
    done = threading.Event()
    totals: list[int] = []

    def count() -> None:
        with raftpico.Client(*addresses, timeout=60.0) as client:
            while not done.is_set():
                totals.append(client.command({"add": 1}))

    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(count)
        try:
            for _ in range(3):
                enough = len(totals) + 200
                wait_for("commands", lambda enough=enough: len(totals) > enough)
                leader = faulty.wait_leader()
                leader.kill()
                leader.restart()
        finally:
            done.set()
        counting.result(ANSWER_SECONDS)
    assert totals == list(range(1, len(totals) + 1))
    state = faulty.wait_converged()
    assert state["machines"]["user"]["total"] == len(totals)


# --- reads ------------------------------------------------------------------------------------


def ask(member: Member, kind: str, timeout: float = ANSWER_SECONDS, **bounds: int) -> Any:
    """The whole response to a query for the total, with its index."""
    params = {"kind": kind, "input": "total", "index": True, **bounds}
    return member.rpc("Apply", params, timeout)


def test_a_query_waits_for_its_index(faulty: Cluster) -> None:
    """min_index: as soon as the member has applied it, on every member."""
    base = send(faulty[0], {"add": 1}, 1, index=True)["result"]["index"]
    for member in faulty:
        for kind in ("Query", "LocalQuery"):
            seen = ask(member, kind, min_index=base)["result"]
            assert seen["index"] >= base and seen["output"] == 1
    later = base + 3
    waiting = [
        (member.connect(), kind) for member in faulty for kind in ("Query", "LocalQuery")
    ]
    for connection, kind in waiting:
        for wanted in (later, base, later - 1):
            params = {"kind": kind, "input": "total", "index": True, "min_index": wanted}
            connection.send(request("Apply", params, wanted))
        assert connection.receive()["id"] == base
    assert all(connection.is_silent(0.1) for connection, _ in waiting)
    for seq in (2, 3, 4):
        assert send(faulty[1], {"add": 1}, seq, index=True)["result"]["index"] == base + seq - 1
    for connection, _ in waiting:
        answers = {a["id"]: a["result"] for a in (connection.receive(), connection.receive())}
        assert answers[later] == {"index": later, "output": 4}
        assert answers[later - 1]["output"] >= 3
        connection.close()


def test_an_index_that_is_not_reached(make_cluster: MakeCluster) -> None:
    """The request's deadline holds, and the answer says how far the member is."""
    cluster = make_cluster(1, command=machine("hasty"))
    far = ask(cluster[0], "LocalQuery", min_index=1000)
    assert far["error"]["code"] == 116
    applied = cluster[0].state()["applied_index"]
    assert far["error"]["data"] == {
        "outcome": "not_applied",
        "min_index": 1000,
        "applied_index": applied,
    }


def test_staleness_is_bounded(faulty: Cluster) -> None:
    """max_staleness_ms: a member that is cut off answers local queries, but not those."""
    leader = faulty.wait_leader()
    result_of(send(leader, {"add": 1}, 1))
    follower = next(member for member in faulty if member is not leader)
    for bound in (0, 10_000):
        assert ask(follower, "LocalQuery", max_staleness_ms=bound)["result"]["output"] == 1
    others = [member for member in faulty if member is not follower]
    for member in others:
        member.pause()
    try:
        # What was confirmed a moment ago is good enough for the one, not for the other.
        assert ask(follower, "LocalQuery", max_staleness_ms=600_000)["result"]["output"] == 1
        assert ask(follower, "LocalQuery")["result"]["output"] == 1
        refused = ask(follower, "LocalQuery", max_staleness_ms=0)
        assert code_of(refused) == 108
    finally:
        for member in others:
            member.resume()
    faulty.wait_leader()
    assert ask(follower, "LocalQuery", max_staleness_ms=0)["result"]["output"] == 1


def test_a_fresh_read_sees_every_answered_command(faulty: Cluster) -> None:
    """With no staleness allowed, a local query is as good as a query, on any member."""
    for seq in range(1, 31):
        result_of(send(faulty[seq % 3], {"add": 1}, seq))
        for member in faulty:
            assert ask(member, "LocalQuery", max_staleness_ms=0)["result"]["output"] == seq


def test_a_client_reads_its_own_writes(faulty: Cluster) -> None:
    with (
        raftpico.Client(faulty[0].address) as writer,
        raftpico.Client(faulty[1].address) as reader,
    ):
        for number in range(1, 101):
            answer = writer.command({"add": 1}, index=True)
            # Another member, told by hand where the writer is.
            assert reader.local_query("total", min_index=answer.index) == number
            assert writer.local_query("total") == number
