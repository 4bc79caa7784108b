"""What a snapshot of a large state costs: python tests/measure_snapshots.py [--keys 1000000]

Three members of the key-value store on this machine. Puts at a steady rate, with and without a
snapshot on the leader, in turn; memory of the leader and of the process that writes; a restart;
a new member brought up from the snapshot while its connections are cut ten times. Prints a line
for each figure and a JSON object at the end; fails where an election happened.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from breaks import Proxy, shimmed
from cluster import Cluster, Member, apply_request, result_of, wait_for
from load import command_many

CUTS = 10
CONNECTIONS = 16
VALUE_BYTES = 64

# The store as it is, with its debug lines; it takes snapshots only when asked.
PROGRAM = """
import logging, sys
from raftpico import kvs
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="%(message)s")
kvs.KeyValueStore.snapshot_in_process = IN_PROCESS
sys.exit(kvs.main(sys.argv[1:]))
"""


class Puts:
    """Puts at a steady rate from a thread, each timed from when it was due."""

    def __init__(self, addresses: list[str], rate: float, keys: int) -> None:
        self.samples: list[tuple[float, float]] = []  # (when it was due, seconds)
        self._rate = rate
        self._keys = keys
        self._stop = threading.Event()
        self._sockets = []
        for at in range(CONNECTIONS):
            host, port = addresses[at % len(addresses)].rsplit(":", 1)
            connection = socket.create_connection((host, int(port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "Puts without an answer"
        for connection in self._sockets:
            connection.close()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        partial = dict.fromkeys(self._sockets, b"")
        for connection in self._sockets:
            selector.register(connection, selectors.EVENT_READ)
        due: dict[int, float] = {}
        sent = 0
        start = time.monotonic()
        while due or not self._stop.is_set():
            now = time.monotonic()
            while not self._stop.is_set() and start + sent / self._rate <= now:
                key = f"key-{sent * 7919 % self._keys:09}"
                put = apply_request({"Put": [key, "y" * VALUE_BYTES]}, "Command", sent)
                due[sent] = start + sent / self._rate
                self._sockets[sent % CONNECTIONS].sendall(json.dumps(put).encode() + b"\n")
                sent += 1
            wait = max(0.0, start + sent / self._rate - time.monotonic())
            for ready, _ in selector.select(wait):
                connection: Any = ready.fileobj
                piece = connection.recv(1 << 16)
                assert piece, "a member closed its connection"
                now = time.monotonic()
                *lines, partial[connection] = (partial[connection] + piece).split(b"\n")
                for line in lines:
                    response = json.loads(line)
                    result_of(response)
                    began = due.pop(response["id"])
                    self.samples.append((began, now - began))

    def between(self, start: float, end: float) -> list[float]:
        return sorted(seconds for began, seconds in list(self.samples) if start <= began < end)


def percent(values: list[float], part: float) -> float:
    """Milliseconds."""
    return 1000 * values[min(len(values) - 1, int(len(values) * part))]


def memory_kb(pid: int) -> tuple[int, int]:
    """Resident and proportional size; nothing where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return (0, 0)
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE))
    return (int(found.get("Rss", 0)), int(found.get("Pss", 0)))


def child_of(member: Member) -> int | None:
    assert member.process is not None
    for task in Path(f"/proc/{member.process.pid}/task").glob("*/children"):
        for pid in task.read_text().split():
            return int(pid)
    return None


def peak_memory(member: Member) -> dict[str, float]:
    """A snapshot with a look at the memory every few ms, in MiB."""
    assert member.process is not None
    pid = member.process.pid
    before = memory_kb(pid)
    peak = [0, 0, 0, 0]  # parent's RSS, child's RSS, both PSS, child's PSS
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            child = child_of(member)
            mine, theirs = memory_kb(pid), memory_kb(child) if child else (0, 0)
            now = (mine[0], theirs[0], mine[1] + theirs[1], theirs[1])
            peak[:] = [max(pair) for pair in zip(peak, now, strict=True)]
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    put_one(member)
    member.result("TakeSnapshot")
    done.set()
    watcher.join()
    names = ("rss_parent_peak", "rss_child_peak", "pss_both_peak", "pss_child_peak")
    figures = {name: round(kb / 1024, 1) for name, kb in zip(names, peak, strict=True)}
    return {"pss_before": round(before[1] / 1024, 1), **figures}


def put_one(member: Member) -> None:
    result_of(member.apply({"Put": ["key-000000000", "z"]}))


def get_one(member: Member) -> None:
    """Answered when the machine is there, not before."""
    result_of(member.apply({"Get": "key-000000000"}, "LocalQuery", timeout=120.0))


def timed(action: Callable[[], Any]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


class Figures(dict[str, Any]):
    def say(self, name: str, value: Any) -> None:
        self[name] = value
        print(f"{name}: {value}", flush=True)


def fill(cluster: Cluster, keys: int) -> None:
    step = 100_000
    for start in range(0, keys, step):
        stop = min(keys, start + step)
        command_many(
            cluster,
            [{"Put": [f"key-{at:09}", "x" * VALUE_BYTES]} for at in range(start, stop)],
            3000,
        )


def measure_latencies(
    figures: Figures, cluster: Cluster, leader: Member, rate: float, keys: int, rounds: int
) -> None:
    """In turn without and with; the slowest percent of each, the median of the ratios."""
    puts = Puts([member.address for member in cluster], rate, keys)
    without, during, lasted = [], [], []
    try:
        time.sleep(2.0)  # warm
        for _ in range(rounds):
            start = time.monotonic()
            lasted.append(timed(lambda: leader.result("TakeSnapshot")))
            end = time.monotonic()
            time.sleep(max(3.0, lasted[-1]))
            during.append(puts.between(start, end))
            without.append(puts.between(end + 1.0, time.monotonic()))
    finally:
        puts.stop()
    for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        alone = [percent(values, part) for values in without]
        beside = [percent(values, part) for values in during]
        figures.say(f"put_{name}_ms_without", round(statistics.median(alone), 2))
        figures.say(f"put_{name}_ms_during", round(statistics.median(beside), 2))
        ratios = [b / a for a, b in zip(alone, beside, strict=True)]
        figures.say(f"put_{name}_ratio", round(statistics.median(ratios), 2))
    figures.say("puts_per_second", rate)
    figures.say("snapshot_seconds", [round(seconds, 2) for seconds in lasted])
    stops = re.findall(r"stopped for (\d+) us", leader.log.read_text())
    figures.say("machine_stopped_ms", [round(int(us) / 1000, 1) for us in stops])


def measure_new_member(
    figures: Figures, cluster: Cluster, leader: Member, routes: Path, size: int
) -> None:
    new = cluster.new_member()
    to_new, to_leader = Proxy(new.port.number), Proxy(leader.port.number)
    routes.write_text(
        f"{new.port.number} {to_new.port}\n{leader.port.number} {to_leader.port}\n"
    )
    added = threading.Thread(
        target=lambda: leader.result("AddServer", {"addr": new.address}, 600.0)
    )
    start = time.monotonic()
    added.start()
    for cut in range(CUTS):
        wanted = size * (cut + 1) // (CUTS + 2)
        wait_for("a piece", lambda w=wanted: to_new.bytes_in > w, 120.0, 0.001)  # type: ignore[misc]
        to_new.cut()
        to_leader.cut()
    added.join(600.0)
    assert not added.is_alive(), "the new member was not added"
    get_one(new)
    figures.say("new_member_seconds", round(time.monotonic() - start, 2))
    figures.say("new_member_cuts", CUTS)
    figures.say("new_member_bytes_more_than_snapshot", to_new.bytes_in - size)
    routes.write_text("")
    to_new.close()
    to_leader.close()


def measure(folder: Path, options: argparse.Namespace) -> Figures:
    figures = Figures(keys=options.keys, in_process=options.in_process)
    routes = folder / "routes"
    routes.touch()
    program = PROGRAM.replace("IN_PROCESS", str(options.in_process))
    cluster = Cluster(
        folder / "cluster",
        3,
        command=[sys.executable, "-c", program, "--snapshot-log-mb", "100000"],
        environment=shimmed(routes=routes),
    )
    try:
        cluster.create()
        figures.say("fill_seconds", round(timed(lambda: fill(cluster, options.keys)), 1))
        leader = cluster.wait_leader()
        term = leader.state()["current_term"]
        figures.say("memory_mb", peak_memory(leader))
        measure_latencies(figures, cluster, leader, options.rate, options.keys, options.rounds)
        assert leader.data is not None
        (file,) = leader.data.glob("snapshot-*.jsonl")
        figures.say("snapshot_bytes", file.stat().st_size)
        states = cluster.states().values()
        figures.say("elections", max(s["current_term"] for s in states) - term)
        measure_new_member(figures, cluster, leader, routes, file.stat().st_size)
        put_one(leader)
        leader.result("TakeSnapshot")
        figures.say("restart_seconds", round(timed(leader.restart), 2))
        figures.say("restored_seconds_later", round(timed(lambda: get_one(leader)), 2))
    finally:
        cluster.destroy()
    assert figures["elections"] == 0, "an election happened"
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="Puts a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--in-process", action="store_true", help="by the machine's thread, to compare"
    )
    parser.add_argument("--folder", help="where the data goes (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(measure(Path(folder), options)))


if __name__ == "__main__":
    main()
