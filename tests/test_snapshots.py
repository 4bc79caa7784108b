"""Snapshots while the machine works on: written by a child process, by the machine's thread
where that cannot be, and carried to other members over connections that break."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from breaks import Proxy, shimmed
from cluster import Cluster, Connection, Member, request, result_of, wait_for
from load import command_many
from measure_snapshots import measure

MakeCluster = Callable[..., Cluster]


def running(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("machines.py")), name]


def child_of(member: Member) -> int | None:
    """The process that writes a snapshot for the member now."""
    assert member.process is not None
    tasks = Path(f"/proc/{member.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    assert len(children) <= 1, "two at once"
    return children[0] if children else None


def wait_child(member: Member) -> int:
    return wait_for("a process that writes the snapshot", lambda: child_of(member))


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def snapshot_lines(member: Member) -> list[Any]:
    assert member.data is not None
    (file,) = member.data.glob("snapshot-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def temporaries(member: Member) -> list[Path]:
    assert member.data is not None
    return list(member.data.glob("*.tmp"))


def wait_no_temporaries(member: Member) -> None:
    wait_for("nothing of it is left", lambda: not temporaries(member))


class Gate:
    """Snapshots that are begun wait until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        self.path.touch()

    def open(self) -> None:
        self.path.unlink()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.path.unlink(missing_ok=True)


def begin_at_gate(member: Member, gate: Gate) -> tuple[Connection, int]:
    """A snapshot of 500 keys under way that stands at the gate: who asked, and the child."""
    result_of(member.apply({"fill": [0, 500]}))
    result_of(member.apply({"mode": ["wait", str(gate.path)]}))
    connection = member.connect()
    connection.send(request("TakeSnapshot"))
    return connection, wait_child(member)


# --- while the machine works on ---------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
def test_applying_goes_on_and_the_snapshot_is_of_its_index(
    make_cluster: MakeCluster, gate: Gate, durable: bool
) -> None:
    """S6: nothing that was applied after its index is in it, however long it takes."""
    one = make_cluster(1, command=running("saver"), durable=durable)[0]
    asked, child = begin_at_gate(one, gate)
    before = one.state()["applied_index"]
    for value in range(300):
        assert result_of(one.apply({"put": [f"k{value}", "later"]})) == 500
    assert result_of(one.apply({"put": ["new", 1]})) == 501
    assert child_of(one) == child
    assert one.state()["snapshot"]["index"] == 0
    gate.open()
    assert asked.receive()["result"] == {"snapshot_index": before}
    wait_for("it was reaped", lambda: is_gone(child))
    if not durable:
        assert result_of(one.apply({"get": "k7"}, "Query")) == "later"
        return
    assert temporaries(one) == []
    header, first, *rest = snapshot_lines(one)
    assert header["snapshot"]["index"] == before
    assert first["state"]["index"] == before
    entries = {k: v for line in rest[:-1] for k, v in line["state"].items()}
    assert entries == {f"k{at}": at for at in range(500)}
    one.restart()
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    assert result_of(one.apply({"get": "k7"}, "Query")) == "later"
    assert result_of(one.apply({"get": "k499"}, "Query")) == 499


def put_seconds(member: Member, seconds: float, count: int = 0) -> list[float]:
    """How long each of the Puts took that were sent one after the other meanwhile."""
    taken = []
    end = time.monotonic() + seconds
    with member.connect() as connection:
        while time.monotonic() < end or len(taken) < count:
            start = time.monotonic()
            result_of(connection.apply({"put": ["a", len(taken)]}))
            taken.append(time.monotonic() - start)
    return taken


def test_answers_come_as_fast_while_a_snapshot_is_written(make_cluster: MakeCluster) -> None:
    """S9. Two seconds of work in snapshot() delay no answer by anything like that."""
    one = make_cluster(1, command=running("saver"))[0]
    result_of(one.apply({"mode": ["spin", 2.0]}))
    result_of(one.apply({"fill": [0, 20_000]}))
    alone = put_seconds(one, 1.0, 50)
    with one.connect() as connection:
        connection.send(request("TakeSnapshot"))
        child = wait_child(one)
        beside = put_seconds(one, 1.0)
        assert child_of(one) == child, "the snapshot was over too soon to tell"
        assert "result" in connection.receive()
    slow = max(0.02, 10 * statistics.median(alone))
    assert statistics.median(beside) < slow, (statistics.median(beside), slow)


def test_one_long_value(make_cluster: MakeCluster) -> None:
    """A state that is one value of several MiB, written and read in pieces all the same."""
    one = make_cluster(1, command=running("whole"))[0]
    result_of(one.apply({"fill": [0, 60_000]}))
    one.result("TakeSnapshot")
    _, state, end = snapshot_lines(one)
    assert len(state["state"]["entries"]) == 60_000
    assert end["end"]["lines"] == 1
    assert result_of(one.apply({"fill": [60_000, 1]})) == 60_001
    one.restart()
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    value = result_of(one.apply({"get": "k59999"}, "Query"))
    assert value == [59_999, {"text": "ä" * 49, "half": 29_999.5}]
    assert result_of(one.apply({"get": "k60000"}, "Query"))[0] == 60_000


# --- what goes wrong --------------------------------------------------------------------------


def test_a_child_holds_nothing_of_its_parents(make_cluster: MakeCluster, gate: Gate) -> None:
    """No socket, no lock, no log: only what it writes to."""
    one = make_cluster(1, command=running("saver"))[0]
    with one.connect() as idle:
        idle.call("GetServerState")
        asked, child = begin_at_gate(one, gate)
        held = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{child}/fd").iterdir()}
        assert set(held) == {"0", "1", "2", "3"}
        assert held["3"].endswith("snapshot-own.tmp")
        nice = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[16]
        assert int(nice) == min(19, os.nice(0) + 10)
        gate.open()
        assert "result" in asked.receive()


def test_killed_while_a_child_writes(make_cluster: MakeCluster, gate: Gate) -> None:
    """The child dies with it; its port, its lock and its connections are free at once."""
    one = make_cluster(1, command=running("saver"))[0]
    asked, child = begin_at_gate(one, gate)
    assert temporaries(one) != []
    one.kill()
    with pytest.raises(Exception, match=r"end of stream|reset"):
        asked.receive(5.0)
    one.start()
    one.wait_ready()
    wait_for("the child is gone", lambda: is_gone(child), 5.0)
    assert temporaries(one) == []
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    assert result_of(one.apply({"get": "k499"}, "Query")) == 499
    gate.open()
    assert one.result("TakeSnapshot")["snapshot_index"] > 0


def test_stopped_while_a_child_writes(make_cluster: MakeCluster, gate: Gate) -> None:
    one = make_cluster(1, command=running("saver"))[0]
    _, child = begin_at_gate(one, gate)
    assert one.terminate() == 0
    assert is_gone(child)
    one.start()
    one.wait_ready()
    assert temporaries(one) == []


def test_a_killed_child_costs_one_try(make_cluster: MakeCluster, gate: Gate) -> None:
    """The one who asked learns it, the others nothing; after two, no third is started."""
    one = make_cluster(1, command=running("saver"))[0]
    asked, child = begin_at_gate(one, gate)
    for turn in range(2):
        os.kill(child, signal.SIGKILL)
        error = asked.receive()["error"]
        assert error["code"] == 112
        assert "signal 9" in error["data"]["reason"]
        assert is_gone(child)
        wait_no_temporaries(one)
        assert result_of(one.apply({"put": [f"after{turn}", 1]})) == 501 + turn
        asked.send(request("TakeSnapshot"))
        if turn == 0:
            child = wait_child(one)
    gate.open()
    assert "result" in asked.receive()
    wait_for("it was noted", lambda: "written by its thread" in one.tail())
    assert one.result("TakeSnapshot")["snapshot_index"] >= 0


def test_a_child_that_hangs_is_ended(make_cluster: MakeCluster, gate: Gate) -> None:
    """No progress for a second, which is this machine's `snapshot_timeout`."""
    one = make_cluster(1, command=running("impatient"))[0]
    asked, child = begin_at_gate(one, gate)
    os.kill(child, signal.SIGSTOP)
    error = asked.receive()["error"]
    assert error["code"] == 112
    assert "no progress" in error["data"]["reason"]
    assert is_gone(child)
    assert result_of(one.apply({"put": ["after", 1]})) == 501
    gate.open()
    assert "result" in one.rpc("TakeSnapshot")


@pytest.mark.parametrize("name", ["saver", "saver-in-process"])
def test_a_snapshot_that_fails(make_cluster: MakeCluster, name: str) -> None:
    """It raises, or gives what is no JSON: the reason is told, and nothing else is touched."""
    one = make_cluster(1, command=running(name))[0]
    result_of(one.apply({"fill": [0, 1000]}))
    for mode, reason in (
        ("raise", "ValueError: no snapshot today"),
        ("object", "not give JSON"),
    ):
        result_of(one.apply({"mode": [mode]}))
        error = one.rpc("TakeSnapshot")["error"]
        assert error["code"] == 109
        assert reason in error["data"]["reason"]
        assert child_of(one) is None
        wait_no_temporaries(one)
    result_of(one.apply({"mode": ["well"]}))
    index = one.result("TakeSnapshot")["snapshot_index"]
    assert index == one.state()["applied_index"]
    one.restart()
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    assert result_of(one.apply({"get": "k999"}, "Query")) == 999


def test_a_machine_that_cannot_be_forked(make_cluster: MakeCluster, gate: Gate) -> None:
    """snapshot_in_process: it waits for its snapshot, the member does not."""
    one = make_cluster(1, command=running("saver-in-process"))[0]
    result_of(one.apply({"fill": [0, 500]}))
    result_of(one.apply({"mode": ["wait", str(gate.path)]}))
    with one.connect() as asked, one.connect() as other:
        asked.send(request("TakeSnapshot"))
        wait_for("it is being written", lambda: temporaries(one))
        other.send(
            {
                "jsonrpc": "2.0",
                "id": 5,
                "method": "Apply",
                "params": {"kind": "Command", "input": {"put": ["k1", "later"]}},
            }
        )
        wait_for("the command is in the log", lambda: lag(one) > 0)
        assert child_of(one) is None
        gate.open()
        index = asked.receive()["result"]["snapshot_index"]
        assert other.receive()["id"] == 5
    assert one.state()["applied_index"] == index + 1
    assert snapshot_lines(one)[2]["state"]["k1"] == 1


def lag(member: Member) -> int:
    state = member.state()
    behind: int = state["commit_index"] - state["applied_index"]
    return behind


def test_no_process_to_be_had(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """fork() fails: the machine's thread writes the snapshot."""
    broken = tmp_path / "no-fork"
    environment = shimmed(no_fork=broken)
    one = make_cluster(1, command=running("saver"), environment=environment)[0]
    result_of(one.apply({"fill": [0, 1000]}))
    broken.touch()
    assert "result" in one.rpc("TakeSnapshot")
    wait_for("it was noted", lambda: "Cannot allocate memory" in one.tail())
    broken.unlink()
    result_of(one.apply({"fill": [1000, 1]}))
    assert "result" in one.rpc("TakeSnapshot")
    assert one.tail().count("Cannot allocate memory") == 1


# --- to other members -------------------------------------------------------------------------


def test_a_transfer_goes_on_where_it_broke(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """S8: ten cuts cost ten chunks, not ten transfers; AddServer is answered all the same."""
    routes = tmp_path / "routes"
    routes.touch()
    environment = shimmed(routes=routes)
    cluster = make_cluster(1, command=running("whole"), environment=environment)
    leader = cluster.wait_leader()
    result_of(leader.apply({"fill": [0, 140_000]}))
    # Past what is kept behind a snapshot.
    command_many(cluster, [{"fill": [0, 1]}] * 12_000)
    index = leader.result("TakeSnapshot")["snapshot_index"]
    assert leader.data is not None
    (file,) = leader.data.glob("snapshot-*.jsonl")
    total = file.stat().st_size
    assert total > 12_000_000
    new = cluster.new_member()
    to_new, to_leader = Proxy(new.port.number), Proxy(leader.port.number)
    try:
        routes.write_text(
            f"{new.port.number} {to_new.port}\n{leader.port.number} {to_leader.port}\n"
        )
        with leader.connect() as connection:
            connection.send(request("AddServer", {"addr": new.address}))
            for cut in range(10):
                wait_for(
                    "a piece more",
                    lambda cut=cut: to_new.bytes_in > total * (cut + 1) // 12,  # type: ignore[misc]
                    pause=0.001,
                )
                assert new.state()["snapshot"]["index"] == 0, "too fast to be cut"
                to_new.cut()
                to_leader.cut()
            assert connection.receive()["result"]["members"][-1] == new.address
        assert new.state()["snapshot"]["index"] >= index
        print(f"{to_new.bytes_in - total} bytes more than the {total} of the snapshot")
        # A cut loses what is on its way: a chunk of 256 KiB, and one that was asked for twice.
        assert to_new.bytes_in < total + 10 * 2 * 256 * 1024 + 500_000
        assert to_new.connections > 10
    finally:
        to_new.close()
        to_leader.close()
    assert result_of(new.apply({"get": "k139999"}, "LocalQuery"))[0] == 139_999
    wait_for("it has all of it", lambda: lag(new) == 0)


# --- of several members -----------------------------------------------------------------------


def test_one_member_at_a_time(make_cluster: MakeCluster) -> None:
    """S15: all reach the size at the same moment, and take their snapshots one by one.

    Each is kept at it for long enough that two would be seen.
    """
    cluster = make_cluster(3, command=running("frequent"))
    cluster.command_until_done({"mode": ["spin", 0.3]})
    done: set[tuple[str, int]] = set()
    at_work: list[list[str]] = []
    with cluster.wait_leader().connect() as connection:

        def put_and_look() -> bool:
            states = [member.state() for member in cluster]
            oldest = min(state["snapshot"]["index"] for state in states)
            # Past four times the size nobody waits for his turn any more: not so far.
            if max(state["last_log_index"] for state in states) - oldest < 500:
                for _ in range(5):
                    result_of(connection.apply({"put": ["a", "x" * 200]}))
            at_work.append([member.name for member in cluster if child_of(member) is not None])
            done.update(
                (member.name, index)
                for member, state in zip(cluster, states, strict=True)
                if (index := state["snapshot"]["index"])
            )
            return all(len([1 for name, _ in done if name == m.name]) >= 2 for m in cluster)

        wait_for("two snapshots of each member", put_and_look, 90.0, 0.005)
    together = [names for names in at_work if len(names) > 1]
    assert not together, f"{len(together)} of {len(at_work)} looks: {together[:3]}"
    assert {name for names in at_work for name in names} == {"n1", "n2", "n3"}


@pytest.mark.slow
def test_a_million_keys(tmp_path: Path) -> None:
    """A snapshot under load, its memory, a restart and a new member over ten cuts.

    No election (checked by the measurement), at most the state twice, no transfer from zero;
    how long things take is for `python tests/measure_snapshots.py` to tell.
    """
    options = argparse.Namespace(keys=1_000_000, rate=1000.0, rounds=2, in_process=False)
    figures = measure(tmp_path, options)
    memory = figures["memory_mb"]
    assert memory["pss_both_peak"] < 2.1 * memory["pss_before"]
    assert figures["new_member_bytes_more_than_snapshot"] < 10_000_000
    assert figures["snapshot_bytes"] > 80_000_000
