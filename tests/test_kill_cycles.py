"""Kills at random moments (kill_cycles.py), and at every system call that touches the disk."""

from __future__ import annotations

import collections
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Closed, Cluster, Member, code_of, wait_for
from kill_cycles import COMMAND, run_series
from load import read_all

from raftpico._inspect import inspect

MakeCluster = Callable[..., Cluster]


def test_kills_at_random_moments(make_cluster: MakeCluster) -> None:
    """D3, V2, D7: 30 of one member, 10 of all three; no acknowledged Put is lost."""
    cluster = make_cluster(3, create=False, command=COMMAND)
    kills, puts = run_series(cluster, 30, 10, seed=1)
    assert kills >= 60 and puts > 400


@pytest.mark.slow
def test_kills_at_random_moments_by_the_thousand() -> None:
    """2,000 and 500: tests/kill_cycles.py, about half an hour."""
    program = Path(__file__).with_name("kill_cycles.py")
    subprocess.run([sys.executable, str(program)], check=True)


# --- at every system call ---------------------------------------------------------------------

# The calls by which a directory changes or is opened; of openat, those on the directory.
CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "renameat", "unlinkat", "openat")
MACHINE = [sys.executable, str(Path(__file__).with_name("machines.py")), "store"]
VALUE = "x" * 700
PUTS = 14
SNAPSHOTS_AFTER = (6, 10)


def put(key: str) -> dict[str, object]:
    return {"Put": {"key": key, "value": VALUE}}


class Life:
    """What one member lives through, and what it has acknowledged on the way."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.acknowledged: list[str] = []

    def live(self) -> None:
        """Puts over several segments, snapshots, a graceful stop; or until it is killed."""
        with contextlib.suppress(OSError, Closed), self.member.connect() as connection:
            connection.call("CreateCluster")
            for number in range(PUTS):
                if code_of(connection.apply(put(f"k{number}"))) is None:
                    self.acknowledged.append(f"k{number}")
                if number in SNAPSHOTS_AFTER:
                    connection.call("TakeSnapshot")
        with contextlib.suppress(ProcessLookupError):
            assert self.member.process is not None
            self.member.process.terminate()

    def check(self) -> None:
        """It comes back with all that it acknowledged, and its files are in order."""
        assert self.member.data is not None
        if (self.member.data / "meta.jsonl").exists():
            report = inspect(self.member.data)
            assert not report.refused and not report.quarantined, report.findings
        self.member.start()
        self.member.wait_ready()
        if self.member.state()["node_id"] is None:
            assert not self.acknowledged, "the cluster is forgotten"
        else:
            wait_for("it leads", lambda: self.member.state()["role"] == "Leader")
            keys = [f"k{number}" for number in range(PUTS)]
            values = read_all(self.member, keys, "Query")
            lost = [key for key in self.acknowledged if values[key] != VALUE]
            assert not lost, f"lost: {lost}"
            assert set(values.values()) <= {None, VALUE}
        self.member.kill()


class Tracer:
    """Ends lives of one member at a chosen system call, by strace."""

    def __init__(self, cluster: Cluster) -> None:
        self.member = cluster[0]
        self.member.kill()
        assert self.member.data is not None
        self.data: Path = self.member.data
        self.said = self.member.log.with_suffix(".strace")
        self.prepared = self.data.with_name("prepared")

    def _words(self, call: str, when: int | None) -> list[str]:
        inject = [] if when is None else ["-e", f"inject={call}:signal=KILL:when={when}"]
        paths = ["-P", str(self.data)] if call == "openat" else []
        return ["-f", "-e", f"trace={call}", *paths, *inject, "-o", str(self.said)]

    def end_running(self, call: str, when: int | None) -> bool:
        """Kill a running member at that call of a thread (None: at none); was it killed?"""
        shutil.rmtree(self.data, ignore_errors=True)
        self.member.start()
        self.member.wait_ready()
        assert self.member.process is not None
        command = ["strace", *self._words(call, when), "-p", str(self.member.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            assert "attached" in attached, attached
            life = Life(self.member)
            life.live()
            killed = self.member.wait_exit() == -9
            tracer.stderr.read()
        life.check()
        return killed

    def prepare(self) -> Life:
        """A directory as a kill leaves it, for `end_opening`."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.member.start()
        self.member.wait_ready()
        life = Life(self.member)
        with self.member.connect() as connection:
            connection.call("CreateCluster")
            for number in range(PUTS):
                assert code_of(connection.apply(put(f"k{number}"))) is None
                life.acknowledged.append(f"k{number}")
            connection.call("TakeSnapshot")
        self.member.kill()
        segments = sorted(self.data.glob("log-*.jsonl"))
        torn = segments[-1].read_bytes().rstrip(b"\n") + b"\n" + b'{"index":'
        segments[-1].write_bytes(torn)
        shutil.rmtree(self.prepared, ignore_errors=True)
        shutil.copytree(self.data, self.prepared)
        return life

    def end_opening(self, call: str, when: int | None, life: Life) -> bool:
        """Kill a member at that call of its start; was it killed?"""
        shutil.rmtree(self.data)
        shutil.copytree(self.prepared, self.data)
        command = self.member.command
        self.member.command = ["strace", "-D", *self._words(call, when), *command]
        self.member.start()
        self.member.command = command
        process = self.member.process
        assert process is not None

        def over() -> bool:
            if process.poll() is not None:
                return True
            with contextlib.suppress(OSError, Closed):
                return "result" in self.member.rpc("GetServerState", timeout=1.0)
            return False

        wait_for("it has started or is dead", over)
        killed = process.poll() is not None
        if not killed:
            process.kill()
        assert self.member.wait_exit() == -9
        life.check()
        return killed

    def count(self, call: str) -> int:
        """The most calls that one thread made in the last life."""
        threads = re.findall(rf"^(\d+) +{call}\(", self.said.read_text(), re.MULTILINE)
        return max(collections.Counter(threads).values(), default=0)


@pytest.fixture
def tracer(make_cluster: MakeCluster, tmp_path: Path) -> Tracer:
    """Skips where strace is not there, or may not trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    inject = ["-e", "trace=fsync", "-e", "inject=fsync:signal=KILL:when=1"]
    code = "import os; os.fsync(os.open('.', 0))"
    probe = ["strace", "-f", "-o", str(tmp_path / "probe"), *inject, sys.executable, "-c", code]
    if subprocess.run(probe, cwd=tmp_path, capture_output=True, check=False).returncode == 0:
        pytest.skip("strace cannot trace or inject here")
    return Tracer(make_cluster(1, create=False, command=MACHINE))


def test_killed_at_some_system_calls(tracer: Tracer) -> None:
    """D3: a sample of what the next test does at all of them."""
    for call, when in (("pwrite64", 7), ("fdatasync", 5), ("renameat", 2)):
        assert tracer.end_running(call, when), f"there is no {call} {when}"
    life = tracer.prepare()
    for call, when in (("ftruncate", 2), ("renameat", 1)):
        assert tracer.end_opening(call, when, life), f"there is no {call} {when}"


@pytest.mark.slow
def test_killed_at_every_system_call(tracer: Tracer) -> None:
    """D3: at every one of a life, and at every one of a start after a kill."""
    points = {}
    life = tracer.prepare()
    for call in CALLS:
        tracer.end_running(call, None)
        running = tracer.count(call)
        killed = sum(tracer.end_running(call, when) for when in range(1, running + 1))
        tracer.end_opening(call, None, life)
        opening = tracer.count(call)
        killed += sum(tracer.end_opening(call, w, life) for w in range(1, opening + 1))
        points[call] = (running, opening, killed)
        print(f"{call}: {running} in its life, {opening} in its start, {killed} killed there")
    killed = sum(killed for _, _, killed in points.values())
    print(f"{killed} points")
    assert killed > 80
