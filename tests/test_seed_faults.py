"""The faults that the seed of this project had, and damaged directories: each a named test."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import (
    Cluster,
    Member,
    Port,
    apply_request,
    code_of,
    request,
    result_of,
    wait_for,
)
from load import read_all

MakeCluster = Callable[..., Cluster]


def put_line(key: str, value: object = 1, id: object = 0) -> dict[str, Any]:
    return apply_request({"Put": {"key": key, "value": value}}, "Command", id)


def test_seed_fault_a_good_and_a_bad_line_in_one_segment(cluster: Cluster) -> None:
    """The seed spins for ever, serves nobody, and an election follows."""
    term = cluster.wait_leader().state()["current_term"]
    good = json.dumps(put_line("good", 1, 1)).encode()
    for member in cluster:
        with member.connect() as connection:
            connection.send_bytes(good + b"\n{bad\n" + good + b"\n")
            responses = [connection.receive() for _ in range(3)]
            assert sorted(str(r["id"]) for r in responses) == ["1", "1", "None"]
            assert [code_of(r) for r in responses if r["id"] is None] == [-32700]
    for member in cluster:
        assert member.state()["current_term"] == term
    assert cluster.put("after", 1) is None


def test_seed_fault_a_bad_line_poisons_its_connection(lone: Cluster) -> None:
    """In the seed every later request gets the old error."""
    with lone[0].connect() as connection:
        connection.send_bytes(b"{bad\n")
        assert code_of(connection.receive()) == -32700
        for turn in range(5):
            connection.send(request("GetServerState", None, turn))
            response = connection.receive()
            assert response["id"] == turn
            assert "result" in response


class Rude(threading.Thread):
    """A server that answers every line it is sent with an error or with rubbish."""

    ANSWERS = (
        b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32600,"message":"Invalid request"}}\n',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}\n',
        b"rubbish %d\n",
        b'{"jsonrpc":"2.0","id":%d,"result":17}\n',
        b"\x00\xff\n",
        b"[]\n",
    )

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.lines = 0

    def run(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer: socket.socket) -> None:
        try:
            with peer, peer.makefile("rb") as lines:
                for _ in lines:
                    answer = self.ANSWERS[self.lines % len(self.ANSWERS)]
                    self.lines += 1
                    peer.sendall(answer.replace(b"%d", str(self.lines).encode()))
        except OSError:
            pass

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_seed_fault_an_error_reply_from_a_members_address(cluster: Cluster) -> None:
    """It crashes the seed's leader. D10: an error where a result was expected."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    gone = cluster.others(leader)[0]
    gone.kill()
    rude = Rude(gone.port.number)
    rude.start()
    wait_for("the leader has tried it", lambda: rude.lines >= 3)
    for value in range(2, 30):
        assert cluster.put("a", value, leader) == value - 1
    rude.close()
    gone.restart()
    cluster.wait_converged()


def test_adding_a_rude_address_changes_nothing(cluster: Cluster) -> None:
    """D10: AddServer of something that is no server of ours."""
    port = Port()
    rude = Rude(port.number)
    rude.start()
    response = cluster[0].rpc("AddServer", {"addr": port.address}, timeout=65.0)
    assert code_of(response) == 111
    assert cluster[0].members == [m.address for m in cluster]
    assert cluster.put("a", 1) is None
    rude.close()
    port.release()


HOSTILE_TERM = (1 << 64) - 1


@pytest.mark.parametrize("sent_as", ["notification", "request"])
def test_seed_fault_an_unauthenticated_append_with_a_huge_term(
    cluster: Cluster, sent_as: str
) -> None:
    """In the seed one AppendEntriesCall from a client ends in a leader at term 0."""
    cluster.put("a", 1)
    leader = cluster.wait_leader()
    before = cluster.wait_converged()
    header = {"from": 0, "term": HOSTILE_TERM, "seqno": 1}
    position = {"term": HOSTILE_TERM, "index": HOSTILE_TERM}
    entries = {"prev": position, "commands": []}
    messages = {
        "AppendEntriesCall": {"header": header, "commit_index": 0, "entries": entries},
        "AppendEntriesReply": {"header": header, "last_position": position},
        "RequestVoteCall": {"header": header, "last_log_position": position},
        "RequestVoteReply": {"header": header, "vote_granted": True},
        "InstallSnapshot": {
            "node_id": 0,
            "last_included": position,
            "voters": [0],
            "new_voters": [],
            "machines": {},
        },
    }
    for member in cluster:
        with member.connect() as connection:
            for method, params in messages.items():
                message = request(method, params, method)
                if sent_as == "notification":
                    del message["id"]
                connection.send(message)
                if sent_as == "request":
                    assert code_of(connection.receive()) == -32601
            connection.send(request("GetServerState", None, "still"))
            assert connection.receive()["id"] == "still"
    after = cluster.wait_converged()
    assert after["current_term"] == before["current_term"]
    assert cluster.wait_leader() is leader
    assert cluster.put("a", 2) == 1


SLOW_SYNC = r"""
/* While the file named by SYNC_HOLD exists, no sync returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void hold(void) {
    const char *path = getenv("SYNC_HOLD");
    while (path && access(path, F_OK) == 0)
        usleep(2000);
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    hold();
    return next(fd);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    hold();
    return next(fd);
}
"""


@pytest.fixture
def hold_syncs(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file that holds up every sync while it exists, and the environment that does it."""
    source, library = tmp_path / "slow_sync.c", tmp_path / "slow_sync.so"
    source.write_text(SLOW_SYNC)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60
    )
    hold = tmp_path / "hold"
    return hold, {"LD_PRELOAD": str(library), "SYNC_HOLD": str(hold)}


def assert_waits_for_the_sync(member: Member, hold: Path) -> None:
    with member.connect() as connection:
        hold.touch()
        connection.send(put_line("synced", 1))
        assert connection.is_silent(1.0), "answered before the sync"
        assert member.apply({"Get": {"key": "synced"}}, "LocalQuery")["result"] is None
        hold.unlink()
        assert result_of(connection.receive()) is None
    assert result_of(member.apply({"Get": {"key": "synced"}}, "LocalQuery")) == 1


def test_seed_fault_one_node_answers_before_its_write(
    make_cluster: MakeCluster, hold_syncs: tuple[Path, dict[str, str]]
) -> None:
    """C7: a lone node counts itself, and answers, only behind its own sync."""
    hold, environment = hold_syncs
    cluster = make_cluster(1, environment=environment)
    cluster.put("a", 1)
    assert_waits_for_the_sync(cluster[0], hold)


def test_no_answer_before_a_majority_has_synced(
    make_cluster: MakeCluster, hold_syncs: tuple[Path, dict[str, str]]
) -> None:
    """C7: with three members as well, no answer while no disk has it."""
    hold, environment = hold_syncs
    cluster = make_cluster(3, environment=environment)
    cluster.put("a", 1)
    cluster.wait_converged()
    leader = cluster.wait_leader()
    with leader.connect() as connection:
        hold.touch()
        connection.send(put_line("synced", 1))
        assert connection.is_silent(0.8), "answered before a sync"
        states = cluster.states()
        assert len(states) == 3, "a state does not answer while the disk hangs"
        hold.unlink()
        response = connection.receive()
        assert code_of(response) in (None, 106, 108), response
    cluster.wait_leader()
    cluster.wait_converged()


def test_seed_fault_a_torn_last_line_stops_the_start(make_cluster: MakeCluster) -> None:
    """D4: what a crash left half-written was never answered; it is cut and said so."""
    cluster = make_cluster(1)
    one = cluster[0]
    assert one.data is not None
    keys = [f"k{i}" for i in range(20)]
    for key in keys:
        cluster.put(key, key)
    for torn in (b'{"index":', b'{"index":99,"term":1,"time":17', b"\0" * 100, b'{"index":99}'):
        one.kill()
        newest = sorted(one.data.glob("log-*.jsonl"))[-1]
        held = newest.read_bytes().rstrip(b"\n")
        newest.write_bytes(held + b"\n" + torn)
        one.start()
        one.wait_ready()
        wait_for("it leads", lambda: one.state()["role"] == "Leader")
        assert read_all(one, keys, "Query") == {k: k for k in keys}
        cluster.put("after", torn.decode())


def test_a_flipped_bit_is_refused_with_its_place(make_cluster: MakeCluster) -> None:
    """D4: damage in the middle may have been acknowledged: a lone server does not start."""
    cluster = make_cluster(1)
    one = cluster[0]
    assert one.data is not None
    for i in range(20):
        cluster.put(f"k{i}", i)
    one.kill()
    segment = sorted(one.data.glob("log-*.jsonl"))[0]
    data = bytearray(segment.read_bytes())
    at = data.index(b'"k5"') + 1
    data[at] ^= 1
    segment.write_bytes(data)
    one.start()
    assert one.wait_exit() != 0
    assert segment.name in one.tail()


def test_damaged_term_and_vote_are_refused(make_cluster: MakeCluster) -> None:
    """V2, V3: a member that does not know how it voted does not start."""
    cluster = make_cluster(1)
    one = cluster[0]
    assert one.data is not None
    cluster.put("a", 1)
    one.kill()
    meta = one.data / "meta.jsonl"
    data = bytearray(meta.read_bytes())
    at = data.rindex(b'"term":') + len(b'"term":')
    data[at] = ord("9") if data[at] != ord("9") else ord("8")
    meta.write_bytes(data)
    one.start()
    assert one.wait_exit() != 0
    assert "meta.jsonl" in one.tail()
