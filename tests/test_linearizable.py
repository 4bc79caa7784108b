"""Real clusters under mixed faults are linearizable; histories.py says what is checked.

More of them: python tests/histories.py --histories 100 --operations 5000 --seed S
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster import ANSWER_SECONDS, PATIENCE, Cluster, Member, apply_request, code_of, wait_for
from histories import LEDGER, check_applied, check_linearizable, check_versions
from workload import Record

MakeCluster = Callable[..., Cluster]
SCRIPT = Path(__file__).resolve().parent / "histories.py"
ELECTION = (150, 300)
QUERIES = 20  # sent at once on a connection
LATE = 1000  # ids from here on were sent after the newer write was acknowledged


def start_histories(directory: Path, seed: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--seed", str(seed), *options]
    command += ["--directory", str(directory / str(seed))]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str], timeout: float) -> str:
    """What it said. One that hangs is a failure, and leaves no process behind."""
    try:
        said, _ = process.communicate(timeout=timeout * PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate(timeout=30)
        pytest.fail(f"histories hang:\n{said}")
    assert process.returncode == 0, said
    return said


def test_five_histories(tmp_path: Path) -> None:
    """Two at a time; the seed is another one each time, and named by a failure."""
    seed = int(os.environ.get("RAFTPICO_TEST_SEED", time.time()))
    size = ("--operations", "600", "--faults", "5")
    one = start_histories(tmp_path, seed, "--histories", "3", *size)
    two = start_histories(tmp_path, seed + 3, "--histories", "2", *size)
    try:
        said = finish(one, 240) + finish(two, 240)
    finally:
        for process in (one, two):
            if process.poll() is None:
                process.terminate()
                process.wait(30)
    assert said.count(": good") == 5, said
    assert sum(map(int, re.findall(r"(\d+) ok", said))) > 1500, said


@pytest.mark.slow
def test_a_hundred_histories(tmp_path: Path) -> None:
    seed = int(os.environ.get("RAFTPICO_TEST_SEED", time.time()))
    process = start_histories(tmp_path, seed, "--histories", "100", "--operations", "5000")
    assert finish(process, 3 * 3600).count(": good") == 100


# --- what is checked of a history can fail ----------------------------------------------------


def record(name: str, kind: str, *given: Any, at: tuple[int, int], **more: Any) -> Record:
    made = Record(name, kind, list(given), "n1", 100, at[0], at[1], "ok", **more)
    return made


PUT = record("c0-1", "Command", "put", "register0", "c0-1", at=(0, 1), value=None, version=1)
PUT_MORE = record(
    "c0-2", "Command", "put", "register0", "c0-2", at=(2, 3), value="c0-1", version=2
)
READ = record("c0-3", "Query", "get", "register0", at=(4, 5), value="c0-2", version=2)
LOCAL = record("c0-4", "LocalQuery", "get", "register0", at=(6, 7), value="c0-2", version=2)
SOUND = [PUT, PUT_MORE, READ, LOCAL]
APPLIED = {"c0-1": 1, "c0-2": 1}


def test_a_sound_history() -> None:
    assert check_linearizable(SOUND)[0] == []
    assert check_versions(SOUND, of_each_life=False) == []
    assert check_versions(SOUND, of_each_life=True) == []
    assert check_applied(SOUND, APPLIED) == []


def test_a_stale_query_shows() -> None:
    stale = [PUT, PUT_MORE, replace(READ, value="c0-1", version=1)]
    assert len(check_linearizable(stale)[0]) == 1
    assert len(check_versions(stale, of_each_life=False)) == 1


def test_a_stale_local_query_shows_where_its_own_process_knew_better() -> None:
    stale = replace(LOCAL, value="c0-1", version=1)
    assert check_linearizable([*SOUND[:3], stale])[0] == []
    assert len(check_versions([*SOUND[:3], stale], of_each_life=True)) == 1
    assert check_versions([*SOUND[:3], replace(stale, life=7)], of_each_life=True) == []


def test_what_was_applied_shows() -> None:
    assert check_applied(SOUND, {"c0-1": 2, "c0-2": 1}) == ["c0-1 was applied 2 times"]
    assert "acknowledged and lost" in check_applied(SOUND, {"c0-1": 1})[0]
    refused = replace(PUT_MORE, outcome="refused")
    assert "refused and applied" in check_applied([PUT, refused], APPLIED)[0]
    unknown = replace(PUT_MORE, outcome="unknown", returned=None)
    assert check_applied([PUT, unknown], APPLIED) == []
    assert check_applied([PUT, unknown], {"c0-1": 1}) == []


# --- a leader that was stopped ----------------------------------------------------------------


def put(member: Member, cluster: Cluster, number: int) -> None:
    """Acknowledged when this returns."""

    def done() -> bool:
        response = member.apply([f"put-{number}", "put", "x", number])
        return code_of(response) is None

    wait_for(f"a put of {number}", done)


def query_lines(first: int) -> bytes:
    lines = [apply_request(["get", "x"], "Query", first + at) for at in range(QUERIES)]
    return b"".join(json_line(line) for line in lines)


def json_line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def stale_round(cluster: Cluster, number: int) -> int:
    """Queries wait in the socket of a stopped leader while others take a newer write.

    Some connections were there before and at work, one comes while it is stopped. Returns how
    many of the late queries were answered with a value.
    """
    leader = cluster.wait_leader()
    rest = cluster.others(leader)
    put(leader, cluster, 2 * number)
    connections = [leader.connect() for _ in range(2)]
    counts = (2 * QUERIES, 2 * QUERIES, QUERIES)
    try:
        for connection in connections:  # in the middle of work, not idle
            connection.send_bytes(query_lines(0))
        leader.pause()
        put(rest[0], cluster, 2 * number + 1)
        connections.append(leader.connect())
        for connection in connections:
            connection.send_bytes(query_lines(LATE))
        leader.resume()
        answered = 0
        for connection, count in zip(connections, counts, strict=True):
            for _ in range(count):
                answered += check_answer(connection.receive(ANSWER_SECONDS), number)
        return answered
    finally:
        leader.resume()
        for connection in connections:
            connection.close()


def check_answer(response: dict[str, Any], number: int) -> bool:
    """Whether it is a value that was asked for late."""
    if code_of(response) is not None:
        assert code_of(response) in (106, 108, 110), response
        return False
    value = response["result"][0]
    if response["id"] < LATE:  # asked before the newer write
        assert value in (2 * number, 2 * number + 1), response
        return False
    assert value == 2 * number + 1, f"stale in round {number}: {response}"
    return True


def stale_rounds(make_cluster: MakeCluster, rounds: int) -> None:
    cluster = make_cluster(3, command=LEDGER, election=ELECTION)
    answered = sum(stale_round(cluster, number) for number in range(1, rounds + 1))
    # Nearly all: it follows the new leader by the time that it looks at them.
    assert answered > QUERIES * rounds, "too few were answered for this to say something"


def test_a_stopped_leader_serves_no_stale_query(make_cluster: MakeCluster) -> None:
    """L3, L4: whatever was in its socket while another leader wrote."""
    stale_rounds(make_cluster, 5)


@pytest.mark.slow
def test_a_stopped_leader_serves_no_stale_query_500_times(make_cluster: MakeCluster) -> None:
    stale_rounds(make_cluster, 500)
