"""Members whose directories are damaged, deleted or old: they never vote for what they lost.

Each comes back by itself: without a vote, caught up by the leader, and then with its vote.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, Member, code_of, wait_for
from corruption import seal
from load import read_all

MakeCluster = Callable[..., Cluster]

ELECTION_MS = (100, 250)
NO_LEADER_SECONDS = 1.0  # four of the longest election time-outs


def put_many(cluster: Cluster, word: str, count: int, member: Member) -> dict[str, int]:
    """Acknowledged Puts."""
    for value in range(count):
        cluster.put(f"{word}{value}", value, member)
    return {f"{word}{value}": value for value in range(count)}


def segment(member: Member) -> Path:
    assert member.data is not None
    return sorted(member.data.glob("log-*.jsonl"))[-1]


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def damage_tail(member: Member) -> None:
    """A bit of the last line: it was acknowledged, and is no torn write."""
    content = segment(member).read_bytes().rstrip(b"\n")
    flip(segment(member), content.rindex(b"\n") + 30)


def damage_middle(member: Member) -> None:
    content = segment(member).read_bytes().rstrip(b"\n")
    flip(segment(member), content.index(b"\n", len(content) // 2) + 30)


def delete(member: Member) -> None:
    assert member.data is not None
    shutil.rmtree(member.data)


def delete_log(member: Member) -> None:
    """Identity, term and vote are left: it must not vote as itself for all that."""
    assert member.data is not None
    for path in member.data.glob("log-*.jsonl"):
        path.unlink()


def is_marked(member: Member) -> bool:
    assert member.data is not None
    return (member.data / "quarantine.jsonl").exists()


def assert_no_leader(cluster: Cluster, members: list[Member], seconds: float) -> None:
    """Over several election time-outs nobody leads, and no command is taken."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for member, state in cluster.states(members).items():
            assert state["role"] != "Leader", f"{member} leads:\n{member.tail()}"
        time.sleep(0.02)


def check_tool(member: Member) -> str:
    command = [sys.executable, "-m", "raftpico.log", "check", str(member.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout


@pytest.mark.parametrize("damage", [damage_tail, damage_middle, delete])
def test_it_comes_back_by_itself(
    make_cluster: MakeCluster, damage: Callable[[Member], None]
) -> None:
    """M13, D4: no vote before it holds what the leader had committed; no operator is needed."""
    cluster = make_cluster(3, election=ELECTION_MS)
    leader = cluster.wait_leader()
    broken, other = cluster.others(leader)
    wanted = put_many(cluster, "k", 20, leader)
    cluster.wait_converged()
    broken.kill()
    damage(broken)
    leader.kill()

    # One whole member and one that has lost something: together they must not decide.
    broken.start()
    broken.wait_ready()
    assert damage is delete or is_marked(broken)
    assert_no_leader(cluster, [broken, other], NO_LEADER_SECONDS)

    # Two whole members: they elect, and bring the third one up to date.
    leader.start()
    leader.wait_ready()
    cluster.wait_leader()
    wanted |= put_many(cluster, "later", 3, other)
    cluster.wait_converged()
    wait_for("it is no learner", lambda: broken.state()["role"] != "Learner")
    wait_for("its mark is gone", lambda: not is_marked(broken))
    if damage is not delete:
        broken.wait_says("damage at line")
        broken.wait_says("votes again")
        assert "in order" in check_tool(broken)
    cluster.assert_logs_identical()

    # Its vote counts again: with it, and without one of the others, there is a leader.
    wait_for("all vote", lambda: len(other.members) == 3)
    cluster.wait_leader().kill()
    left = cluster.others()
    cluster.wait_leader(left)
    wanted |= put_many(cluster, "last", 3, left[0])
    cluster.wait_converged()
    assert broken not in left or read_all(broken, list(wanted)) == wanted
    for member in left:
        assert read_all(member, list(wanted)) == wanted


@pytest.mark.parametrize("damage", [damage_tail, delete_log])
def test_what_it_lost_is_not_voted_away(
    make_cluster: MakeCluster, damage: Callable[[Member], None]
) -> None:
    """Acknowledged by two; one of them loses it, the other is away, the third never had it."""
    cluster = make_cluster(3, election=ELECTION_MS)
    leader = cluster.wait_leader()
    broken, behind = cluster.others(leader)
    wanted = put_many(cluster, "k", 5, leader)
    cluster.wait_converged()
    behind.kill()
    wanted |= put_many(cluster, "more", 20, leader)
    cluster.wait_converged()
    leader.kill()
    broken.kill()
    damage(broken)
    for member in (broken, behind):
        member.start()
        member.wait_ready()
    assert_no_leader(cluster, [broken, behind], NO_LEADER_SECONDS)
    leader.start()
    leader.wait_ready()
    assert cluster.wait_leader() is leader, "only it holds all that was acknowledged"
    cluster.wait_converged()
    for member in cluster:
        assert read_all(member, list(wanted)) == wanted


def test_an_older_backup_is_not_let_in(make_cluster: MakeCluster) -> None:
    """An earlier life of a member has forgotten what it promised: the others refuse it."""
    cluster = make_cluster(3, election=ELECTION_MS)
    leader = cluster.wait_leader()
    member, other = cluster.others(leader)
    wanted = put_many(cluster, "k", 3, leader)
    cluster.wait_converged()
    assert member.data is not None
    assert member.terminate() == 0
    backup = member.data.with_name("backup")
    shutil.copytree(member.data, backup)
    for _ in range(2):
        member.start()
        member.wait_ready()
        wanted |= put_many(cluster, "more", 3, member)
        member.kill()
    shutil.rmtree(member.data)
    shutil.copytree(backup, member.data)
    member.start()
    member.wait_ready()
    wait_for("it is told", lambda: "an earlier life of this server" in member.tail())
    wait_for("they say so", lambda: "an earlier life of that member" in leader.tail())
    leader = cluster.wait_leader([leader, other])
    leader.kill()
    assert_no_leader(cluster, [member, other], NO_LEADER_SECONDS)
    leader.start()
    leader.wait_ready()
    # The way back is that of an empty directory.
    member.kill()
    shutil.rmtree(member.data)
    member.start()
    member.wait_ready()
    cluster.wait_leader()
    cluster.wait_converged()
    assert read_all(member, list(wanted)) == wanted


def test_directories_of_others_are_refused(make_cluster: MakeCluster) -> None:
    """M14: another node's directory does not start; another cluster's stays alone."""
    cluster = make_cluster(3, election=ELECTION_MS)
    leader = cluster.wait_leader()
    member, other = cluster.others(leader)
    wanted = put_many(cluster, "k", 3, leader)
    cluster.wait_converged()
    assert member.data is not None and other.data is not None
    member.kill()
    own = member.data.with_name("own")
    member.data.rename(own)
    shutil.copytree(other.data, member.data)
    member.start()
    assert member.wait_exit() == 1
    assert f"belongs to the server at {other.address}" in member.tail()

    # A cluster of its own at the same address, as from another installation.
    shutil.rmtree(member.data)
    for whole in (leader, other):
        whole.pause()  # or the leader would take it back at once
    member.start()
    member.wait_ready()
    member.result("CreateCluster")
    assert code_of(member.apply({"Put": {"key": "foreign", "value": 1}})) is None
    for whole in (leader, other):
        whole.resume()
    wait_for("they say so", lambda: "another cluster" in leader.tail())
    assert member.members == [member.address]
    wanted |= put_many(cluster, "more", 3, leader)
    assert read_all(leader, ["foreign"]) == {"foreign": None}

    # Its own directory put back: a member again.
    member.kill()
    shutil.rmtree(member.data)
    own.rename(member.data)
    member.start()
    member.wait_ready()
    cluster.wait_converged()
    assert read_all(member, [*wanted, "foreign"]) == {**wanted, "foreign": None}


def test_a_lone_member_without_its_log_does_not_start(make_cluster: MakeCluster) -> None:
    """Nobody could bring it back: starting empty would lose everything in silence."""
    one = make_cluster(1)[0]
    one.apply({"Put": {"key": "k", "value": 1}})
    one.kill()
    delete_log(one)
    assert "REFUSED: log-*.jsonl" in check_tool(one)
    one.start()
    assert one.wait_exit() == 1
    assert "log-*.jsonl files are missing" in one.tail()


def test_an_unfinished_creation_can_be_asked_again(make_cluster: MakeCluster) -> None:
    """D3: killed between the first write of the identity and that of the first entry."""
    one = make_cluster(1, create=False)[0]
    one.kill()
    assert one.data is not None
    meta = {"cluster": "ab" * 16, "address": one.address, "node": 1, "incarnation": 1}
    record = seal({**meta, "term": 1, "voted_for": 0, "removed": False}, 0)
    (one.data / "meta.jsonl").write_bytes(record.ljust(4096, b"\n"))
    assert "NOTE: meta.jsonl: it has an identity, but there is no log" in check_tool(one)
    one.start()
    one.wait_ready()
    one.wait_says("this starts as a new server")
    assert one.result("CreateCluster") == {"members": [one.address]}
    assert code_of(one.apply({"Put": {"key": "k", "value": 1}})) is None
    one.restart()
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    assert read_all(one, ["k"], "Query") == {"k": 1}
