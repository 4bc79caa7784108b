"""Disks that fail under running servers: they say so, step aside, and come back if they can.

The disk is made bad by a library that is preloaded (c/bad_disk.c) and reads its rules from a
file; one test has a real file system that is full.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cbuild import build
from cluster import (
    KVS,
    Closed,
    Cluster,
    Member,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)
from load import read_all

MakeCluster = Callable[..., Cluster]

DISK_STALL_SECONDS = 5.0  # csrc/base/limits.h: DISK_STALL_MS
DISK_FULL_SECONDS = 1.0  # DISK_FULL_MS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD")


def put(key: str, value: object) -> dict[str, object]:
    return {"Put": {"key": key, "value": value}}


class BadDisk:
    """The disk of one member."""

    def __init__(self, member: Member) -> None:
        library = build(
            "bad_disk.so", ["tests/c/bad_disk.c"], sanitize=False, flags=["-shared", "-fPIC"]
        )
        assert member.data is not None
        self.rules = member.log.with_suffix(".rules")
        self.said_file = member.log.with_suffix(".said")
        preloaded = [p for p in [os.environ.get("LD_PRELOAD", ""), str(library)] if p]
        member.environment = {
            "LD_PRELOAD": " ".join(preloaded),
            "BAD_DISK_DATA": str(member.data.resolve()),
            "BAD_DISK_RULES": str(self.rules),
            "BAD_DISK_SAID": str(self.said_file),
        }

    def set(self, *rules: str) -> None:
        """From now on; none: it works again."""
        new = self.rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.rename(self.rules)

    @property
    def said(self) -> list[str]:
        """The calls that failed, in order."""
        return self.said_file.read_text().splitlines() if self.said_file.exists() else []


def make(make_cluster: MakeCluster, n: int = 3) -> tuple[Cluster, dict[Member, BadDisk]]:
    """A cluster whose disks can be made bad."""
    cluster = make_cluster(n, create=False)
    disks = {}
    for member in cluster:
        member.kill()
        disks[member] = BadDisk(member)
        member.start()
    for member in cluster:
        member.wait_ready()
    cluster.create(100, 400)
    cluster.put("before", 1)
    cluster.wait_converged()
    return cluster, disks


# --- a disk that fails ------------------------------------------------------------------------


def failure_of(member: Member) -> str:
    """What GetServerState says about the disk, while it can still be asked."""

    def said() -> str | None:
        try:
            return member.state(timeout=2.0).get("storage_failure")
        except (OSError, Closed):
            pytest.fail(f"{member} ended before it said why:\n{member.tail()}")

    return str(wait_for("GetServerState says that the disk failed", said, 10.0, 0.005))


@pytest.mark.parametrize(
    ("which", "rule"),
    [("leader", "fdatasync EIO"), ("follower", "write HALF")],
)
def test_a_disk_that_fails_ends_the_member(
    make_cluster: MakeCluster, which: str, rule: str
) -> None:
    """D1: it takes no part from then on, says why in three places, and never tries again."""
    cluster, disks = make(make_cluster)
    leader = cluster.wait_leader()
    member = leader if which == "leader" else cluster.others(leader)[0]
    rest = cluster.others(member)
    disks[member].set(rule)
    with member.connect() as connection:
        connection.send(apply_request(put("now", 2), id=1))
        reason = failure_of(member)
        connection.send(
            apply_request(put("later", 3), id=2), request("GetServerState", None, id=3)
        )
        answers = {a["id"]: a for a in (connection.receive() for _ in range(3))}
    answer, refused, state = answers[1], answers[2], result_of(answers[3])
    assert "Input/output error" in reason and "log-" in reason
    # Where others may have the command, nobody can say that it was not applied.
    assert answer.get("result", 0) is None or answer["error"]["code"] == 112, answer
    assert "error" not in answer or answer["error"]["data"]["outcome"] == "unknown"
    assert code_of(refused) == 112 and refused["error"]["data"]["outcome"] == "not_applied"
    assert refused["error"]["data"]["reason"] == reason
    assert state["role"] != "Leader" and state["storage_failure"] == reason
    cluster.wait_leader(rest)
    assert member.wait_exit() == 1
    assert reason in member.tail()
    assert disks[member].said == [rule], "it was tried again"
    cluster.put("without it", 4, rest[0])
    disks[member].set()
    member.start()
    member.wait_ready()
    cluster.wait_converged()
    values = read_all(member, ["before", "without it", "later"])
    assert values == {"before": 1, "without it": 4, "later": None}
    cluster.assert_logs_identical()


def test_a_stop_does_not_wait_for_a_failed_disk(make_cluster: MakeCluster) -> None:
    """What is stopped after its disk failed ends at once, and still says so by its status."""
    cluster, disks = make(make_cluster, 1)
    disks[cluster[0]].set("fdatasync EIO")
    with cluster[0].connect() as connection:
        connection.send(apply_request(put("k", 1)))
        assert code_of(connection.receive()) == 112
    assert cluster[0].terminate() == 1


# --- a disk that is full ----------------------------------------------------------------------


def test_a_full_disk_of_a_leader(make_cluster: MakeCluster) -> None:
    """D2: 112 and reads there, another leads soon; with room it goes on by itself."""
    cluster, disks = make(make_cluster)
    leader = cluster.wait_leader()
    rest = cluster.others(leader)
    disks[leader].set("write ENOSPC")
    with leader.connect() as connection:  # the one that finds out; the others may commit it
        connection.send(apply_request(put("first", 1)))
        reason = failure_of(leader)
        refused = leader.apply(put("refused", 1))
        assert code_of(refused) == 112, refused
        assert refused["error"]["data"] == {"outcome": "not_applied", "reason": reason}
        assert "No space left" in reason
        assert result_of(leader.apply({"Get": "before"}, "LocalQuery")) == 1
        # It makes way, so that the cluster takes commands again, by way of any other member.
        other = cluster.wait_leader(rest, deadline=DISK_FULL_SECONDS + 10)
        cluster.put("meanwhile", 2, other)
        assert code_of(leader.apply(put("refused", 1))) == 112
        disks[leader].set()
        assert connection.receive()["result"] is None
    wait_for("there is room again", lambda: "storage_failure" not in leader.state())
    cluster.put("after", 3, leader)
    cluster.wait_converged()
    values = read_all(leader, ["first", "meanwhile", "after", "refused"])
    assert values == {"first": 1, "meanwhile": 2, "after": 3, "refused": None}
    leader.restart()
    cluster.wait_converged()
    cluster.assert_logs_identical()


FULL_SCRIPT = """
mount -t tmpfs -o size=3m none "$1" && shift && exec "$@"
"""


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a file system in a name space of its own."""
    if shutil.which("unshare") is None:
        return False
    target = folder / "probe"
    target.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL_SCRIPT, "sh", str(target), "true"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_file_system_that_is_full(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """D2, with a real one: filled up to the last block, and emptied again."""
    if not can_mount(tmp_path):
        pytest.skip("no file system may be mounted here")
    small = tmp_path / "small"
    small.mkdir()
    wrapped = ["unshare", "-rm", "sh", "-c", FULL_SCRIPT, "sh", str(small), *KVS]
    cluster = make_cluster(1, create=False, durable=False, command=wrapped)
    one = cluster[0]
    one.kill()
    one.command = [*one.command, str(small / "data")]
    one.start()
    one.wait_ready()
    cluster.create()
    assert one.process is not None
    inside = Path(f"/proc/{one.process.pid}/root{small}")
    ballast = inside / "ballast"
    acknowledged = []
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    with one.connect() as connection:
        for i in range(2000):  # until what was filled ahead is used up
            connection.send(apply_request(put(f"k{i}", "x" * 10_000), id=i))
            try:
                result_of(connection.receive(timeout=2.0))
            except TimeoutError:
                break
            acknowledged.append(f"k{i}")
    assert "No space left" in failure_of(one)
    assert code_of(one.apply(put("more", 1))) == 112
    assert read_all(one, acknowledged) == dict.fromkeys(acknowledged, "x" * 10_000)
    ballast.unlink()
    wait_for("there is room again", lambda: "storage_failure" not in one.state())
    cluster.put("after", 1)
    assert len(acknowledged) > 10
    assert read_all(one, acknowledged) == dict.fromkeys(acknowledged, "x" * 10_000)


# --- a disk that stalls -----------------------------------------------------------------------


def test_a_disk_that_stalls_costs_the_leadership_only(make_cluster: MakeCluster) -> None:
    """D6: reads and the state are answered all the time; in bounded time another leads."""
    cluster, disks = make(make_cluster)
    leader = cluster.wait_leader()
    rest = cluster.others(leader)
    term = leader.state()["current_term"]
    disks[leader].set("fdatasync STALL")
    begin = time.monotonic()
    with leader.connect() as connection:
        connection.send(apply_request(put("stuck", 1)))
        wait_for("the disk stalls", lambda: disks[leader].said)

        def another_leads() -> bool:
            # Whatever waited for the disk would wait until the rule is lifted.
            assert result_of(leader.apply({"Get": "before"}, "LocalQuery")) == 1
            leader.state()
            return any(
                s["role"] == "Leader" and s["current_term"] > term
                for s in cluster.states(rest).values()
            )

        wait_for("another leads", another_leads, DISK_STALL_SECONDS + 10)
        assert time.monotonic() - begin >= DISK_STALL_SECONDS - 1, "not because of the disk"
        leader.wait_says("has not returned for 5000 ms")
        cluster.put("meanwhile", 2, rest[0])
        disks[leader].set()
        assert connection.receive()["result"] is None
    cluster.wait_converged()
    assert read_all(leader, ["stuck", "meanwhile"]) == {"stuck": 1, "meanwhile": 2}
    assert leader.state().get("storage_failure") is None
    cluster.assert_logs_identical()
