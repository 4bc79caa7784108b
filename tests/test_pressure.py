"""Every request with an id is answered in time, and many of them are no one else's trouble.

All of it, with what takes long: pytest -m "slow or not slow" tests/test_pressure.py
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import (
    PATIENCE,
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

NO_LEADER_SECONDS = 5.0
STOP_SECONDS = 3.0
HASTY_SECONDS = 1.5  # request_timeout of the machine of that name
SLACK_SECONDS = 5.0  # for a crowded machine


def hasty() -> tuple[str, ...]:
    """A machine that can be told to sleep, on a server that answers within 1.5 s."""
    return (sys.executable, str(Path(__file__).with_name("machines.py")), "hasty")


def answers_within(connection: Connection, count: int, seconds: float) -> dict[int, Any]:
    """By id. Fails where one of them takes longer."""
    end = time.monotonic() + (seconds + SLACK_SECONDS) * PATIENCE
    answers = {}
    for _ in range(count):
        answer = connection.receive(max(end - time.monotonic(), 0.01))
        answers[answer["id"]] = answer
    return answers


ALL = [
    apply_request({"add": 1}, "Command", 1),
    apply_request({"add": 0}, "Query", 2),
    apply_request({"add": 0}, "LocalQuery", 3),
    request("GetServerState", None, 4),
    request("GetServerState", {"user": True}, 5),
    request("TakeSnapshot", None, 6),
    request("AddServer", {"addr": "127.0.0.1:1"}, 7),
    request("RemoveServer", {"addr": "127.0.0.1:1"}, 8),
]


def check_bound(member: Member, seconds: float) -> dict[int, Any]:
    with member.connect() as connection:
        connection.send(*ALL)
        return answers_within(connection, len(ALL), seconds)


def is_behind(member: Member) -> bool:
    """Whether the machine has not done yet what is committed."""
    state = member.state()
    return bool(state["applied_index"] < state["commit_index"])


# --- the bounds that the README states --------------------------------------------------------


def test_bound_without_a_leader(make_cluster: MakeCluster) -> None:
    """108, certainly not applied, after 5 s; what needs no leader, at once."""
    cluster = make_cluster(3, command=hasty())
    leader = cluster.wait_leader()
    survivor = next(member for member in cluster if member is not leader)
    for member in cluster:
        if member is not survivor:
            member.kill()
    wait_for("no leader", lambda: survivor.state()["leader"] is None)
    answers = check_bound(survivor, NO_LEADER_SECONDS)
    for number in (1, 2):
        assert answers[number]["error"]["code"] == 108
        assert answers[number]["error"]["data"]["outcome"] == "not_applied"
    for number in (3, 4, 5):
        result_of(answers[number])


def test_bound_with_a_stuck_machine(make_cluster: MakeCluster) -> None:
    """The request's own deadline; what the machine is not asked for comes at once."""
    cluster = make_cluster(1, command=hasty())
    with cluster[0].connect() as stuck:
        stuck.send(apply_request({"sleep": 3 * HASTY_SECONDS}, "Command", 0))
        wait_for("it sleeps", lambda: is_behind(cluster[0]))
        answers = check_bound(cluster[0], HASTY_SECONDS)
        assert code_of(answers[1]) == 107
        assert answers[1]["error"]["data"]["outcome"] == "unknown"
        for number in (2, 3, 5):
            assert code_of(answers[number]) == 110
            assert answers[number]["error"]["data"]["outcome"] == "not_applied"
            assert answers[number]["error"]["data"]["retry_after_ms"] > 0
        result_of(answers[4])
        assert code_of(stuck.receive()) == 107
    # Unknown it was, applied it is; and the machine is in use again.
    wait_for(
        "applied after all",
        lambda: cluster[0].apply({"add": 0}, "LocalQuery").get("result") == 1,
    )


def test_bound_of_a_member_that_is_removed(make_cluster: MakeCluster) -> None:
    """102 for what comes later; what was under way is answered as well."""
    cluster = make_cluster(3, command=hasty())
    leader = cluster.wait_leader()
    victim = next(member for member in cluster if member is not leader)
    with victim.connect() as connection:
        connection.send(*(apply_request({"add": 1}, "Command", n) for n in range(200)))
        leader.result("RemoveServer", {"addr": victim.address})
        answers = answers_within(connection, 200, HASTY_SECONDS)
        assert {code_of(answer) for answer in answers.values()} <= {None, 102, 107}
    wait_for("it knows", lambda: code_of(victim.apply({"add": 0}, "Query")) == 102)
    answers = check_bound(victim, HASTY_SECONDS)
    assert [code_of(answers[number]) for number in (1, 2, 3)] == [102, 102, 102]
    result_of(answers[4])


def test_bound_of_a_server_that_stops(make_cluster: MakeCluster) -> None:
    """All that was asked is answered before it is gone, in 3 s, even by a stuck machine."""
    cluster = make_cluster(3, command=hasty())
    leader = cluster.wait_leader()
    with leader.connect() as connection:
        before = leader.state()["last_log_index"]
        connection.send(
            apply_request({"sleep": 1.0}, "Command", 0),
            *(apply_request({"add": 0}, "Query", n) for n in range(1, 100)),
            *(apply_request({"add": 1}, "Command", n) for n in range(100, 200)),
        )
        # The last ones are commands: when they are in the log, all of it was taken.
        wait_for("taken", lambda: leader.state()["last_log_index"] >= before + 101)
        stopping = threading.Thread(target=leader.terminate)
        stopping.start()
        answers = answers_within(connection, 200, STOP_SECONDS)
        assert {code_of(answer) for answer in answers.values()} <= {None, 107, 108, 110}
        with pytest.raises(Closed):
            connection.receive()
        stopping.join()


def test_bound_of_a_server_that_stops_with_a_stuck_machine(make_cluster: MakeCluster) -> None:
    """What the machine has been given, and will not do in time, is answered as well."""
    command = (sys.executable, str(Path(__file__).with_name("machines.py")), "slow")
    cluster = make_cluster(1, command=command, durable=False)
    with cluster[0].connect() as connection:
        connection.send(apply_request({"sleep": 2 * STOP_SECONDS}, "Command", 0))
        wait_for("it sleeps", lambda: is_behind(cluster[0]))
        connection.send(*ALL[:6])
        connection.send(request("GetServerState", None, 9))
        early = answers_within(connection, 2, 0)  # the one who looks waits for nobody
        stopping = threading.Thread(target=cluster[0].terminate)
        stopping.start()
        answers = early | answers_within(connection, 6, STOP_SECONDS)
        assert set(answers) == {0, 1, 2, 3, 4, 5, 6, 9}
        assert {code_of(answers[number]) for number in (0, 1, 6)} == {107}
        assert {code_of(answers[number]) for number in (2, 3, 5)} == {108}
        with pytest.raises(Closed):
            connection.receive()
        stopping.join()


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_too_many_commands_are_refused(make_cluster: MakeCluster) -> None:
    """Past 131,072 commands that wait, 110: certainly not applied, and when to try again."""
    command = (sys.executable, str(Path(__file__).with_name("machines.py")), "slow")
    cluster = make_cluster(1, command=command, durable=False)
    limit, size = 131_072, 1000
    line = b'{"jsonrpc":"2.0","id":1,"method":"Apply","params":["Command",{"add":1}]}'
    batch = b"[" + b",".join([line] * size) + b"]\n"
    connections = [cluster[0].connect() for _ in range(limit // size + 2)]
    connections[0].send(apply_request({"sleep": 8.0}, "Command", 0))
    wait_for("it sleeps", lambda: is_behind(cluster[0]))
    for connection in connections[1:]:
        connection.send_bytes(batch)
    answers = [a for connection in connections[1:] for a in connection.receive()]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert refused
    for error in refused:
        assert error["code"] == 110
        assert error["data"]["outcome"] == "not_applied"
        assert error["data"]["retry_after_ms"] > 0
    applied = cluster[0].apply({"add": 0}, "Query")["result"]
    assert applied == len(answers) - len(refused) == limit - 1
    for connection in connections:
        connection.close()


# --- fairness ---------------------------------------------------------------------------------


# A process of its own: in this one, its threads would keep the other client from running.
GREEDY = """
import socket, sys, threading
port, total, line = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode() + b"\\n"
connection = socket.create_connection(("127.0.0.1", port))
print("connected", flush=True)
sys.stdin.readline()
threading.Thread(target=connection.sendall, args=(line * total,)).start()
while total > 0:
    total -= connection.recv(1 << 16).count(b"\\n")
"""


def test_one_client_does_not_starve_another(make_cluster: MakeCluster) -> None:
    """One pipelines 300,000 commands; another that sends one at a time waits for a share only.

    Counted in events: at least one of its requests for 3,000 of the other's. There are 4,096
    of that in flight where nobody has a share.
    """
    cluster = make_cluster(1, durable=False)
    total = 300_000
    line = b'{"jsonrpc":"2.0","id":1,"method":"Apply","params":["Command",{"Put":["k",1]}]}\n'
    words = [str(cluster[0].port.number), str(total), line.decode().strip()]
    with (
        subprocess.Popen(
            [sys.executable, "-c", GREEDY, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as greedy,
        cluster[0].connect() as modest,
    ):
        assert greedy.stdin is not None and greedy.stdout is not None
        assert greedy.stdout.readline() == b"connected\n"
        result_of(modest.apply({"Get": "k"}))
        greedy.stdin.write(b"\n")
        greedy.stdin.flush()
        served = 0
        while greedy.poll() is None:
            modest.send_bytes(line)
            modest.receive_line()
            served += 1
    assert greedy.returncode == 0
    assert served >= total // 3000
