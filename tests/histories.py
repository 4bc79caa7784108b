"""Histories of real clusters under mixed faults, and what must hold of each.

    python tests/histories.py --histories 100 --operations 5000 --seed 1

Clients (workload.py) work on processes of the ledger machine while faults (faults.py) hit them:
kill -9 of one, some and all, SIGSTOP past the time-outs, cut links where network namespaces can
be made, hand-over of leadership, changes of members, snapshots. Afterwards:

- every request was answered within its bound, or its connection closed;
- each command of a session has a result in the end, and a repeat is told the same (counters
  use sessions, and repeat a command, of any member, until it has one);
- the history of each key is linearizable (linearizability.py), commands whose outcome is
  unknown and all linearizable queries included;
- no answer is older than one that somebody had before it was asked for; a LocalQuery's is not
  older than one that the same process gave before;
- each command was applied once if it was acknowledged, at most once if its outcome is unknown,
  and never if it was refused;
- no term had two leaders, and nobody who led a term came back without its vote;
- the members agree, in state and in the bytes of their logs, and none died by itself.

The seed decides what is asked and which faults are done; the machine decides when. A failure
names the seed, the command to repeat it, and the file with the history.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter as Tally
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netlab
from cluster import Cluster
from faults import Faults, leaders_of_terms
from linearizability import Cell, Counter, Model, Verdict, check
from workload import Record, Workload

LEDGER = [sys.executable, str(Path(__file__).resolve().parent / "machines.py"), "ledger"]
ELECTION_MS = (150, 300)
SECONDS_PER_FAULT = 1.0
"""The rate of requests is such that the faults take about as long as the requests."""


@dataclass
class Report:
    """What one history came to."""

    seed: int
    path: Path
    outcomes: Tally[str] = field(default_factory=Tally)
    kinds: Tally[str] = field(default_factory=Tally)
    faults: Tally[str] = field(default_factory=Tally)
    violations: list[str] = field(default_factory=list)
    repeats: int = 0
    """How often a command of a session was sent again."""
    explored: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        verdict = f"{len(self.violations)} VIOLATIONS" if self.violations else "good"
        return (
            f"seed {self.seed}: {sum(self.outcomes.values())} operations ({outcomes}), "
            f"{self.repeats} repeats, "
            f"{sum(self.faults.values())} faults, {self.explored} explored, "
            f"{self.seconds:.0f} s: {verdict}"
        )


# --- what must hold ---------------------------------------------------------------------------


def model_of(key: str) -> Model:
    return Counter() if key.startswith("counter") else Cell()


def check_linearizable(records: list[Record]) -> tuple[list[str], int]:
    """Violations, and how much was searched."""
    operations = [
        record.operation()
        for record in records
        if record.kind != "LocalQuery" and record.outcome != "refused"
    ]
    verdicts: dict[str, Verdict] = check(operations, model_of)
    bad = [f"{key}: {verdict}" for key, verdict in verdicts.items() if not verdict.linearizable]
    return bad, sum(verdict.explored for verdict in verdicts.values())


def check_versions(records: list[Record], of_each_life: bool) -> list[str]:
    """No answer is older than one that was there before it was asked for.

    With `of_each_life` only answers of the same process count, but for local queries as well.
    """
    violations = []
    groups: dict[Any, list[tuple[int, int, Record]]] = {}
    for record in records:
        if record.outcome != "ok" or record.returned is None:
            continue
        if record.kind == "LocalQuery" and not of_each_life:
            continue
        group = groups.setdefault(record.life if of_each_life else None, [])
        group.append((record.returned, 1, record))
        group.append((record.call, 0, record))
    for group in groups.values():
        newest = 0
        at_call: dict[int, int] = {}
        for _, returned, record in sorted(group, key=lambda event: event[:2]):
            if not returned:
                at_call[id(record)] = newest
                continue
            if record.version < at_call[id(record)]:
                violations.append(f"older than {at_call[id(record)]}, seen before: {record}")
            newest = max(newest, record.version)
    return violations


def check_applied(records: list[Record], applied: dict[str, int]) -> list[str]:
    """Once, at most once, never."""
    violations = [f"{name} was applied {n} times" for name, n in applied.items() if n != 1]
    for record in records:
        if record.kind != "Command":
            continue
        if record.outcome == "ok" and record.name not in applied:
            violations.append(f"acknowledged and lost: {record}")
        if record.outcome == "refused" and record.name in applied:
            violations.append(f"refused and applied: {record}")
    return violations


def check_sessions(records: list[Record]) -> list[str]:
    """None stays unknown or refused."""
    return [
        f"without a result in its session: {record}"
        for record in records
        if record.session is not None and record.outcome != "ok"
    ]


def check_leaders(cluster: Cluster) -> list[str]:
    return [
        f"term {term} had the leaders {sorted(names)}"
        for term, names in leaders_of_terms(cluster.all).items()
        if len(names) > 1
    ]


# --- a history --------------------------------------------------------------------------------


def run_faults(faults: Faults, count: int, report: Report) -> None:
    """What goes wrong while they are done is a violation as well."""
    try:
        faults.run(count)
    except Exception as error:
        report.violations.append(f"{type(error).__name__}: {error}")


def settle(cluster: Cluster, faults: Faults) -> dict[str, int]:
    """With all faults undone the members agree; how often each command was applied."""
    cluster.wait_leader(faults.members)
    state = cluster.wait_converged(faults.members)
    cluster.assert_logs_identical(faults.members)
    applied: dict[str, int] = state["machines"]["user"]["applied"]
    return applied


def judge(report: Report, records: list[Record], applied: dict[str, int] | None) -> None:
    bad, report.explored = check_linearizable(records)
    report.violations += bad
    report.violations += check_versions(records, of_each_life=False)
    report.violations += check_versions(records, of_each_life=True)
    report.violations += check_sessions(records)
    if applied is not None:
        report.violations += check_applied(records, applied)
    report.outcomes.update(record.outcome for record in records)
    report.kinds.update(record.kind for record in records)
    report.repeats = sum(record.attempts - 1 for record in records)


def run_history(
    seed: int, operations: int, faults_count: int, directory: Path, sessions: bool = True
) -> Report:
    """One cluster's life."""
    began = time.monotonic()
    report = Report(seed, directory / f"history-{seed}.jsonl")
    network = netlab.Network() if netlab.inside() else None
    place = directory / f"cluster-{seed}"
    if network is None:
        cluster = Cluster(place, 3, command=LEDGER)
    else:
        cluster = netlab.LabCluster(place, 3, network, LEDGER)
    try:
        cluster.create(*ELECTION_MS)
        cluster.wait_leader()
        rate = operations / (faults_count * SECONDS_PER_FAULT)
        workload = Workload(cluster.all, operations, rate, seed, sessions)
        faults = Faults(cluster, workload, network, seed)
        run_faults(faults, faults_count, report)
        if not report.violations:
            workload.wait()
        workload.stop()
        workload.save(report.path)
        applied = None
        try:
            applied = settle(cluster, faults)
        except AssertionError as error:
            report.violations.append(str(error))
        report.faults = faults.done
        report.violations += workload.violations + faults.violations + check_leaders(cluster)
        report.violations += [fault for m in cluster if (fault := m.fault())]
        judge(report, workload.records, applied)
    finally:
        cluster.destroy()
    report.seconds = time.monotonic() - began
    return report


# --- the command ------------------------------------------------------------------------------


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--histories", type=int, default=1)
    parser.add_argument("--operations", type=int, default=5000, help="of each history")
    parser.add_argument("--faults", type=int, default=12, help="of each history")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first one")
    parser.add_argument("--directory", type=Path, help="where histories and members' files go")
    parser.add_argument("--sessions", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seconds", type=float, help="begin no history after that long")
    parser.add_argument("--keep", action="store_true", help="the files of good histories, too")
    parser.add_argument("--until-bad", action="store_true", help="no history after a bad one")
    parser.add_argument("--no-network", action="store_true", help="no namespaces: no cut links")
    return parser.parse_args(arguments)


def repeat_command(options: argparse.Namespace, seed: int) -> str:
    words = ["python", "tests/histories.py", "--histories", "1", "--seed", str(seed)]
    words += ["--operations", str(options.operations), "--faults", str(options.faults)]
    words += [] if options.sessions else ["--no-sessions"]
    words += ["--no-network"] if not netlab.inside() else []
    return " ".join(words)


def complain(report: Report, options: argparse.Namespace) -> None:
    for violation in report.violations[:20]:
        print(f"    {violation}")
    print(f"    the history: {report.path}")
    print(f"    to repeat: {repeat_command(options, report.seed)}", flush=True)


def remove_files(directory: Path, seed: int) -> None:
    subprocess.run(["rm", "-rf", str(directory / f"cluster-{seed}")], check=False)
    (directory / f"history-{seed}.jsonl").unlink(missing_ok=True)


def run_all(options: argparse.Namespace) -> int:
    """Run what was asked for; the number of histories that are not good."""
    chosen = options.directory or Path(tempfile.mkdtemp(prefix="raftpico-histories-"))
    directory = chosen.resolve()  # the members run elsewhere
    directory.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (options.seconds or float("inf"))
    outcomes: Tally[str] = Tally()
    faults: Tally[str] = Tally()
    repeats = 0
    bad = 0
    ran = 0
    for seed in range(options.seed, options.seed + options.histories):
        if time.monotonic() > end:
            break
        report = run_history(
            seed, options.operations, options.faults, directory, options.sessions
        )
        print(report, flush=True)
        ran += 1
        outcomes.update(report.outcomes)
        faults.update(report.faults)
        repeats += report.repeats
        if report.violations:
            bad += 1
            complain(report, options)
            if options.until_bad:
                break
        elif not options.keep:
            remove_files(directory, seed)
    print(f"{ran} histories, {bad} bad; {sum(outcomes.values())} operations: {dict(outcomes)}")
    print(f"{sum(faults.values())} faults: {dict(faults)}; {repeats} repeats", flush=True)
    return bad


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if not netlab.inside() and not options.no_network and netlab.possible():
        command = [sys.executable, str(Path(__file__).resolve()), *arguments]
        command = netlab.command_inside(command)
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # leaves no member behind
    return 1 if run_all(options) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
