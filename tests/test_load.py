"""A hundred thousand Puts at a thousand at a time over three durable members."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import KVS, Cluster, apply_request
from load import pipelined, read_all
from tools import Shell, find_tool, need_tool

KEYS = 2000


def puts(count: int) -> list[bytes]:
    values = ({"Put": {"key": f"k{i % KEYS}", "value": i}} for i in range(count))
    requests = (apply_request(value, "Command", i) for i, value in enumerate(values))
    return [json.dumps(request).encode() + b"\n" for request in requests]


def check(cluster: Cluster, count: int) -> None:
    """All three hold the same state, and their log lines are the same bytes."""
    state = cluster.wait_converged()
    assert state["last_log_index"] >= count
    assert cluster.assert_logs_identical() >= count
    for member in cluster:
        values = read_all(member, [f"k{i}" for i in range(KEYS)])
        assert len(set(values.values())) == KEYS
        for key, value in values.items():
            assert f"k{value % KEYS}" == key
    for member in cluster:
        member.restart()
    cluster.wait_leader()
    assert cluster.wait_converged()["machines"] == state["machines"]


def test_a_hundred_thousand_puts_by_jlot(cluster: Cluster, tmp_path: Path) -> None:
    """No error and no request without an answer."""
    count = 100_000
    shell = Shell(tmp_path / "shell", {"jlot": need_tool("JLOT_05", "jlot", "0.5")})
    (shell.directory / "requests.jsonl").write_bytes(b"".join(puts(count)))
    ports = " ".join(f":{m.port.number}" for m in cluster)
    output = shell.run(
        f"jlot bench {ports} -c 1000 < requests.jsonl | jlot stats", timeout=300.0
    )
    assert json.loads(output)["detail"]["count"] == {"success": count, "error": 0}
    check(cluster, count)


def test_pipelined_puts(cluster: Cluster) -> None:
    """The same without jlot; fewer where jlot has done it already."""
    count = 10_000 if find_tool("JLOT_05", "jlot", "0.5") else 40_000
    responses = pipelined([m.address for m in cluster], puts(count), 1000)
    answers = [json.loads(line) for line in responses]
    assert sorted(a["id"] for a in answers) == list(range(count))
    assert all("result" in a for a in answers)
    check(cluster, count)


@pytest.mark.parametrize("words", [(), ("--no-sync",)], ids=["synced", "no-sync"])
def test_what_is_alone_waits_for_no_timer(
    make_cluster: Callable[..., Cluster], words: tuple[str, ...]
) -> None:
    """One command after the other, each at another member: the loop of each goes from thread to
    thread with its work, and what it is handed must be looked at at once. A thread that is
    not told waits for its next look at signals, a tenth of a second: few are so slow."""
    cluster = make_cluster(3, command=[*KVS, *words])
    connections = [member.connect() for member in cluster]
    took = []
    for i in range(600):
        began = time.monotonic()
        connections[i % 3].send(apply_request({"Put": {"key": "k", "value": i}}, "Command", i))
        assert "result" in connections[i % 3].receive()
        took.append(time.monotonic() - began)
    assert sorted(took)[580] < 0.09, sorted(took)[-40:]
