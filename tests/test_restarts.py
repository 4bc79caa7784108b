"""Members that stop, die and start again: from the log, from a snapshot, gracefully or not."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster, Member, Port, request, result_of, wait_for
from load import Load, command_many, read_all

MakeCluster = Callable[..., Cluster]


def running(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("machines.py")), name]


def put(key: str, value: object) -> dict[str, object]:
    return {"Put": {"key": key, "value": value}}


def get(key: str) -> dict[str, object]:
    return {"Get": {"key": key}}


def snapshot_files(member: Member) -> list[Path]:
    assert member.data is not None
    return sorted(member.data.glob("snapshot-*.jsonl"))


def test_snapshot_by_hand(cluster: Cluster) -> None:
    """S6: the snapshot holds exactly its last included index; the log goes on after it."""
    for value in range(50):
        cluster.put(f"k{value}", value)
    cluster.wait_converged()
    for member in cluster:
        before = member.state()
        index = member.result("TakeSnapshot")["snapshot_index"]
        assert before["applied_index"] <= index <= member.state()["applied_index"]
        assert member.state()["snapshot"]["index"] == index
        (file,) = snapshot_files(member)
        assert int(file.stem.removeprefix("snapshot-")) == index
        assert all(json.loads(line) for line in file.read_bytes().splitlines())
    cluster.put("after", 1)
    for member in cluster:
        member.restart()
    state = cluster.wait_converged()
    assert state["snapshot"]["index"] >= 50
    for member in cluster:
        values = read_all(member, [f"k{v}" for v in range(50)] + ["after"])
        assert values == {**{f"k{v}": v for v in range(50)}, "after": 1}


def test_a_snapshot_replaces_the_one_before(make_cluster: MakeCluster) -> None:
    """S4: there is a whole snapshot at every moment, and in the end only the newest."""
    one = make_cluster(1)[0]
    for turn in range(3):
        one.apply(put("a", turn))
        index = one.result("TakeSnapshot")["snapshot_index"]
    assert [int(f.stem.removeprefix("snapshot-")) for f in snapshot_files(one)] == [index]
    one.restart()
    wait_for("it leads", lambda: one.state()["role"] == "Leader")
    assert result_of(one.apply(get("a"), "Query")) == 2


def test_snapshots_by_themselves(make_cluster: MakeCluster) -> None:
    """The log does not outgrow the state: members take snapshots and drop what these cover."""
    count = 40_000
    cluster = make_cluster(3, command=running("compact"))
    command_many(cluster, [{"add": 1}] * count)
    cluster.wait_converged()

    def compacted(member: Member) -> bool:
        assert member.data is not None
        held = sum(f.stat().st_size for f in member.data.iterdir())
        # A line of the log is about 100 bytes long.
        return member.state()["snapshot"]["index"] > count // 2 and held < 60 * count

    wait_for("all have let go of their old log", lambda: all(map(compacted, cluster)))
    for member in cluster:
        member.restart()
    cluster.wait_leader()
    cluster.wait_converged()
    for member in cluster:
        assert result_of(member.apply("total", "Query")) == count


def fill(cluster: Cluster) -> None:
    """More entries than members keep behind a snapshot (10,000)."""
    command_many(cluster, [put(f"k{value}", value) for value in range(12_000)])


def snapshot_everywhere(cluster: Cluster) -> int:
    """Snapshots on all running members, so that the log before them is gone."""
    return min(m.result("TakeSnapshot")["snapshot_index"] for m in cluster.running)


def test_a_new_member_is_brought_up_by_a_snapshot(cluster: Cluster) -> None:
    """M3: the configuration comes with it. S11: a log compacted to its tip serves anyone."""
    fill(cluster)
    cluster.wait_converged()
    index = snapshot_everywhere(cluster)
    new = cluster.add()
    cluster.wait_converged()
    assert new.state()["snapshot"]["index"] >= index
    assert min(new.log_lines(), default=index + 1) > index
    assert new.members == [m.address for m in cluster]
    assert read_all(new, ["k0", "k11999"]) == {"k0": 0, "k11999": 11999}
    # It is a full member: it votes in the next election and keeps what it was given.
    leader = cluster.wait_leader()
    leader.kill()
    cluster.wait_leader()
    cluster.put("after", 1, new)
    new.restart()
    wait_for(
        "the new member has it all",
        lambda: read_all(new, ["k7", "after"]) == {"k7": 7, "after": 1},
    )


def test_a_lagging_member_is_brought_up_by_a_snapshot(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    lagging = cluster.others(leader)[0]
    cluster.put("a", 1)
    lagging.kill()
    fill(cluster)
    cluster.wait_converged()
    index = snapshot_everywhere(cluster)
    lagging.restart()
    cluster.wait_converged()
    assert lagging.state()["snapshot"]["index"] >= index
    assert read_all(lagging, ["a", "k11999"]) == {"a": 1, "k11999": 11999}
    lagging.restart()
    cluster.wait_converged()
    assert read_all(lagging, ["a", "k11999"]) == {"a": 1, "k11999": 11999}


def test_killed_while_snapshots_are_taken(make_cluster: MakeCluster) -> None:
    """S3, S4: a kill around a snapshot leaves a directory that opens and holds every answer.

    The seed's own fault: its snapshot truncated the live file.
    """
    cluster = make_cluster(1)
    one = cluster[0]
    wanted = {}
    for turn in range(8):
        with one.connect() as connection:
            for value in range(40):
                key = f"{turn}-{value}"
                result_of(connection.apply(put(key, "x" * 200)))
                wanted[key] = "x" * 200
            connection.send(request("TakeSnapshot", None, 1))
            if turn % 2:  # at once, or when its answer is there
                connection.receive()
        one.restart()
        wait_for("it leads", lambda: one.state()["role"] == "Leader")
        assert read_all(one, list(wanted), "Query") == wanted


# --- restarts ---------------------------------------------------------------------------------


def test_restart_of_one_member(cluster: Cluster) -> None:
    for turn in range(3):
        member = cluster[turn]
        member.kill()
        rest = cluster.running
        cluster.wait_leader(rest)
        cluster.put("a", turn, rest[0])
        member.restart()
        cluster.wait_converged()
        assert result_of(member.apply(get("a"), "Query")) == turn
    cluster.assert_logs_identical()


def test_restart_of_all_members(cluster: Cluster) -> None:
    """V4: the term does not go back. D7: nothing is applied twice or lost."""
    for value in range(100):
        cluster.put(f"k{value}", value)
    before = cluster.wait_converged()
    for _ in range(2):
        for member in cluster:
            member.kill()
        for member in cluster:
            member.start()
        for member in cluster:
            member.wait_ready()
        cluster.wait_leader()
        cluster.put("turn", 1)
        after = cluster.wait_converged()
        assert after["current_term"] > before["current_term"]
        assert after["cluster_id"] == before["cluster_id"]
        for member in cluster:
            assert read_all(member, [f"k{v}" for v in range(100)]) == {
                f"k{v}": v for v in range(100)
            }
        before = after
    cluster.assert_logs_identical()


def test_sigterm_stops_gracefully(cluster: Cluster) -> None:
    """Exit code 0; leadership is handed over; nothing that was answered is lost."""
    cluster.put("a", 1)
    for _ in range(2):
        leader = cluster.wait_leader()
        assert leader.terminate() == 0
        cluster.wait_leader()
        assert result_of(cluster.running[0].apply(get("a"), "Query")) == 1
        leader.start()
        leader.wait_ready()
    for member in cluster:
        assert member.terminate() == 0


def test_sigint_stops_gracefully(make_cluster: MakeCluster) -> None:
    one = make_cluster(1)[0]
    assert one.process is not None
    one.process.send_signal(signal.SIGINT)
    assert one.wait_exit() == 0


def test_a_hand_over_loses_no_request(cluster: Cluster) -> None:
    """A leader that is stopped gracefully under load: no request without an answer."""
    load = Load(cluster)
    load.wait_more(50)
    for _ in range(2):
        leader = cluster.wait_leader()
        assert leader.terminate() == 0
        load.wait_more(50)
        leader.restart()
        load.wait_more(50)
    load.stop()
    cluster.wait_converged()
    load.check(cluster)


def test_a_data_directory_is_used_by_one_process(make_cluster: MakeCluster) -> None:
    """A second server on the same directory, at another address, is refused at the start."""
    cluster = make_cluster(1)
    one = cluster[0]
    second = Member(
        "second", Port(), one.log.with_name("second.log"), one.data, cluster.command
    )
    second.start()
    assert second.wait_exit() != 0
    assert str(one.data) in second.tail()
    second.destroy()
    assert result_of(one.apply(put("a", 1))) is None
