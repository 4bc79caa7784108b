#!/usr/bin/env python3
"""Side by side: raftpico and whatever else is installed, on this machine, in one run.

Three members with synced data files each, started anew in every round; the rounds go A, B, A,
B, and the medians count. The load comes from outside, from `jlot bench` (jlot 0.5), which is
the same program for all. Processor time is that of all three servers together, from /proc.

    python examples/bench.py --quick
    python examples/bench.py --json figures.json

What is compared is found in the PATH or by a variable:
    JLOT_05         jlot 0.5 (cargo install jlot)
    RAFTPICO_RUST   the example of the Rust release (cargo install raftpico --example kvs)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMBERS = 3
START_SECONDS = 30.0
STALL_SECONDS = 120.0  # a load that takes longer has requests that nobody answers
TICKS = os.sysconf("SC_CLK_TCK")


# --- what is compared -------------------------------------------------------------------------


@dataclass(frozen=True)
class System:
    """A key-value store of three processes that speaks the protocol."""

    name: str
    command: tuple[str, ...]  # ADDR and DATA come behind it


@dataclass(frozen=True)
class Workload:
    """Requests of one kind, so many at a time."""

    name: str
    kind: str
    put: bool
    concurrency: int
    count: int


WORKLOADS = tuple(
    Workload(f"{name}, {concurrency} at a time", kind, name == "Put", concurrency, count)
    for concurrency, scale in ((1000, 100), (32, 20), (1, 2))
    for name, kind, count in (
        ("Put", "Command", 1000 * scale),
        ("Get query", "Query", 1000 * scale),
        ("Get local", "LocalQuery", 4000 * scale),
    )
)


def find_systems() -> list[System]:
    """raftpico, and the Rust release where it is installed."""
    systems = [System("raftpico", (sys.executable, "-m", "raftpico.kvs", "--quiet"))]
    rust = shutil.which(os.environ.get("RAFTPICO_RUST") or "kvs")
    if rust:
        systems.append(System("Rust release", (rust,)))
    return systems


def find_jlot() -> str:
    """jlot 0.5, the load generator."""
    for name in (os.environ.get("JLOT_05"), "jlot"):
        path = shutil.which(name) if name else None
        if path:
            version = subprocess.run([path, "--version"], capture_output=True, text=True)
            if version.stdout.startswith("jlot 0.5"):
                return path
    sys.exit(
        "bench: jlot 0.5 is needed, which makes the load: cargo install jlot\n"
        "       and have it in the PATH, or name it with JLOT_05"
    )


# --- a cluster --------------------------------------------------------------------------------


def free_port() -> int:
    """A port below the kernel's own range, free a moment ago."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(15000, 32000)))
            port: int = probe.getsockname()[1]
            return port


def call(port: int, method: str, params: Any = None, timeout: float = 10.0) -> dict[str, Any]:
    """One request on a connection of its own; its whole response."""
    message = {"jsonrpc": "2.0", "id": 0, "method": method}
    if params is not None:
        message["params"] = params
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(json.dumps(message).encode() + b"\n")
        with connection.makefile("rb") as lines:
            response: dict[str, Any] = json.loads(lines.readline())
            return response


def put_once(port: int, timeout: float) -> bool:
    """Whether a Put was answered with a result in that time."""
    params = {"kind": "Command", "input": {"Put": ["bench", 1]}}
    try:
        return "result" in call(port, "Apply", params, timeout)
    except (OSError, ValueError):
        return False


def until(condition: Any, what: str, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.005)


class Cluster:
    """Three members of one system, with data files in a directory that goes away again."""

    def __init__(self, system: System, directory: Path) -> None:
        self.ports = [free_port() for _ in range(MEMBERS)]
        self.processes = []
        self.log = (directory / "log.txt").open("wb")
        for port in self.ports:
            command = [*system.command, f"127.0.0.1:{port}", str(directory / str(port))]
            self.processes.append(
                subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=directory)
            )

    def create(self) -> None:
        for port in self.ports:
            until(lambda port=port: self._answers(port), f"the server on port {port} answers")
        call(self.ports[0], "CreateCluster")
        for port in self.ports[1:]:
            added = call(self.ports[0], "AddServer", {"addr": f"127.0.0.1:{port}"}, 30.0)
            if "error" in added:
                raise RuntimeError(f"AddServer: {added}")
        for port in self.ports:
            until(lambda port=port: put_once(port, 2.0), f"a Put on port {port} is answered")

    @staticmethod
    def _answers(port: int) -> bool:
        try:
            return "result" in call(port, "GetServerState", timeout=2.0)
        except (OSError, ValueError):
            return False

    def processor_seconds(self) -> float:
        """User and system time of all members."""
        ticks = 0
        for process in self.processes:
            if process.poll() is None:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def failover_seconds(self) -> float:
        """From kill -9 of the leader to the first Put that a survivor answers."""
        states = {p: call(p, "GetServerState")["result"] for p in self.ports}
        leader = next(p for p, s in states.items() if s["role"] == "Leader")
        survivors = [p for p in self.ports if p != leader]
        self.processes[self.ports.index(leader)].kill()
        start = time.monotonic()
        until(
            lambda: any(put_once(port, 0.1) for port in survivors),
            "a Put after the loss of the leader",
            60.0,
        )
        return time.monotonic() - start

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.log.close()


@contextlib.contextmanager
def running(system: System, parent: Path | None) -> Iterator[Cluster]:
    """A created cluster, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="raftpico-bench-", dir=parent) as directory:
        cluster = Cluster(system, Path(directory))
        try:
            cluster.create()
            yield cluster
        finally:
            cluster.stop()


# --- the load ---------------------------------------------------------------------------------


def requests(workload: Workload, seed: int) -> bytes:
    """As in the seed's benchmark: keys of three letters, values of 32 bits."""
    chance = random.Random(seed)
    lines = []
    for i in range(workload.count):
        key = "".join(chance.choices(string.ascii_letters, k=3))
        value = {"Put": [key, chance.getrandbits(32)]} if workload.put else {"Get": key}
        params = {"kind": workload.kind, "input": value}
        message = {"jsonrpc": "2.0", "id": i, "method": "Apply", "params": params}
        lines.append(json.dumps(message, separators=(",", ":")))
    return "\n".join(lines).encode() + b"\n"


def percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def measure(jlot: str, cluster: Cluster, workload: Workload, lines: bytes) -> dict[str, float]:
    """One run of one workload; raises TimeoutError when requests stay without an answer."""
    before = cluster.processor_seconds()
    command = [jlot, "bench", *(f":{p}" for p in cluster.ports)]
    command += ["-c", str(workload.concurrency)]
    try:
        done = subprocess.run(
            command, input=lines, capture_output=True, timeout=STALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{workload.name}: requests without an answer") from None
    processor = cluster.processor_seconds() - before
    if done.returncode != 0:
        raise RuntimeError(f"{workload.name}: {done.stderr.decode(errors='replace')[-500:]}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    starts = [a["start_unix_timestamp_micros"] for a in answers]
    ends = [a["end_unix_timestamp_micros"] for a in answers]
    latencies = sorted((e - s) / 1000 for s, e in zip(starts, ends, strict=True))
    return {
        "rate": len(answers) / max((max(ends) - min(starts)) / 1e6, 1e-6),
        "p50_ms": percentile(latencies, 50),
        "p90_ms": percentile(latencies, 90),
        "p99_ms": percentile(latencies, 99),
        "max_ms": latencies[-1],
        "processor_s": processor * 100_000 / len(answers),
        "errors": sum("error" in a for a in answers),
        "unanswered": workload.count - len(answers),
    }


# --- the run ----------------------------------------------------------------------------------


class Progress:
    """A bar on a terminal, a line a step elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.tty = sys.stderr.isatty()

    def step(self, text: str) -> None:
        if self.tty:
            filled = 30 * self.done // self.steps
            bar = "#" * filled + "." * (30 - filled)
            sys.stderr.write(f"\r\x1b[K[{bar}] {text}")
        else:
            sys.stderr.write(f"[{self.done + 1}/{self.steps}] {text}\n")
        sys.stderr.flush()
        self.done += 1

    def note(self, text: str) -> None:
        sys.stderr.write(f"{chr(13) + chr(27) + '[K' if self.tty else ''}{text}\n")

    def end(self) -> None:
        if self.tty:
            sys.stderr.write("\r\x1b[K")


Runs = dict[str, dict[str, list[dict[str, float]]]]  # workload, system: its rounds

FAILOVER = "failover"


def run_round(
    jlot: str,
    system: System,
    workloads: Sequence[Workload],
    seed: int,
    directory: Path | None,
    progress: Progress,
    runs: Runs,
) -> None:
    """All workloads on a new cluster of one system; a stall ends the round and is counted."""
    try:
        with running(system, directory) as cluster:
            for workload in workloads:
                progress.step(f"round {seed + 1}: {system.name}: {workload.name}")
                found = measure(jlot, cluster, workload, requests(workload, seed))
                runs[workload.name][system.name].append(found)
            progress.step(f"round {seed + 1}: {system.name}: {FAILOVER}")
            seconds = cluster.failover_seconds()
            runs[FAILOVER][system.name].append({"failover_ms": seconds * 1000})
    except (TimeoutError, RuntimeError, OSError, ValueError, StopIteration) as error:
        progress.note(f"round {seed + 1}: {system.name}: {error}")
        runs.setdefault("stalls", {}).setdefault(system.name, []).append({"round": seed + 1})


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {n: statistics.median(r[n] for r in rounds) for n in rounds[0]} if rounds else {}


def ratio(ours: dict[str, float], theirs: dict[str, float], name: str) -> str:
    if not ours.get(name) or not theirs.get(name):
        return "-"
    return f"{ours[name] / theirs[name]:.2f}"


def table(runs: Runs, systems: Sequence[System], workloads: Sequence[Workload]) -> str:
    """Medians, in Markdown; ratios are ours to theirs."""
    head = ["work", "system", "rate/s", "p50 ms", "p99 ms", "processor s/100k"]
    head += ["errors", "rounds", "rate x", "p50 x", "processor x"]
    rows = [head, ["---"] * len(head)]
    ours = systems[0].name
    for workload in workloads:
        found = {s.name: medians(runs[workload.name][s.name]) for s in systems}
        for system in systems:
            m = found[system.name]
            row = [workload.name, system.name]
            if m:
                row += [f"{m['rate']:,.0f}", f"{m['p50_ms']:.2f}", f"{m['p99_ms']:.2f}"]
                row += [f"{m['processor_s']:.2f}", f"{m['errors']:.0f}"]
            else:
                row += ["-"] * 5
            row.append(str(len(runs[workload.name][system.name])))
            if system.name == ours:
                row += [""] * 3
            else:
                row += [ratio(found[ours], m, n) for n in ("rate", "p50_ms", "processor_s")]
            rows.append(row)
    for system in systems:
        m = medians(runs[FAILOVER][system.name])
        if m:
            text = f"{system.name}: {m['failover_ms']:.0f} ms"
            rows.append(["leader killed, first Put", text] + [""] * (len(head) - 2))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="two rounds, a fifth of the load")
    made.add_argument("--rounds", type=int, help="of each system (default 5)")
    made.add_argument("--only", metavar="TEXT", help="workloads whose name holds TEXT")
    made.add_argument("--alone", action="store_true", help="raftpico only")
    made.add_argument("--json", metavar="FILE", type=Path, help="write every round's figures")
    made.add_argument(
        "--directory", type=Path, help="where the data files go: a real disk, not a RAM disk"
    )
    return made


def chosen(options: argparse.Namespace) -> list[Workload]:
    factor = 5 if options.quick else 1
    found = [
        Workload(w.name, w.kind, w.put, w.concurrency, w.count // factor)
        for w in WORKLOADS
        if not options.only or options.only.lower() in w.name.lower()
    ]
    if not found:
        names = "\n  ".join(w.name for w in WORKLOADS)
        sys.exit(f"bench: no workload's name holds {options.only!r}:\n  {names}")
    return found


def main() -> int:
    options = parser().parse_args()
    workloads = chosen(options)
    rounds = options.rounds or (2 if options.quick else 5)
    jlot = find_jlot()
    systems = find_systems()[: 1 if options.alone else None]
    runs: Runs = {name: {} for name in [*(w.name for w in workloads), FAILOVER]}
    for name in runs:
        runs[name] = {s.name: [] for s in systems}
    progress = Progress(rounds * len(systems) * (len(workloads) + 1))
    for seed in range(rounds):
        for system in systems:
            progress.done = (seed * len(systems) + systems.index(system)) * (len(workloads) + 1)
            run_round(jlot, system, workloads, seed, options.directory, progress, runs)
    progress.end()
    about = machine()
    print(f"{about['processor']}, {about['processors']} processors, {about['system']},")
    print(f"Python {about['python']}; medians of {rounds} rounds\n")
    print(table(runs, systems, workloads))
    for name, stalls in runs.get("stalls", {}).items():
        print(f"\n{name}: {len(stalls)} of {rounds} rounds ended early")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "runs": runs}, indent=1) + "\n")
    return 1 if systems[0].name in runs.get("stalls", {}) else 0


if __name__ == "__main__":
    sys.exit(main())
