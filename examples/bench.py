#!/usr/bin/env python3
"""Side by side: raftpico and whatever else is installed, on this machine, in one run.

Three members with synced data files each, started anew in every round; the rounds go A, B, A,
B, and the medians count. Processor time is that of all servers together, from /proc.

    python examples/bench.py --quick                  in two minutes
    python examples/bench.py                          all of it: an hour or more
    python examples/bench.py --groups work,values     some of it; --list names them
    python examples/bench.py --readme                 and write README.md's figures
    python examples/bench.py --from figures.json      print again what was measured; what
                                                      several files tell is put together

What is compared is found in the PATH or by a variable, and skipped where it is not there:
    RAFTPICO_RUST   the example of the Rust release (cargo install raftpico --example kvs)
    JLOT_05         jlot 0.5 (cargo install jlot), which makes the load of the group `work`
                    for those that speak its protocol; without it, and for all else, the
                    generator in examples/benchmark/load.c does, which needs a C compiler
    pysyncobj       in this Python; etcd, redis-server, redis-benchmark, strace: in the PATH
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import report
from benchmark.groups import GROUPS, QUICK, Context, Group
from benchmark.load import Stall, find_jlot, raise_descriptors, remove_generator
from benchmark.picture import draw
from benchmark.progress import Progress
from benchmark.results import Results
from benchmark.systems import RAFTPICO, System, find_systems

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "examples/figures.svg"
DESCRIPTORS = 11_000  # 10,000 connections in the generator, and what else it opens


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help=f"one round, a fifth of the load: {', '.join(QUICK)}",
    )
    made.add_argument("--rounds", type=int, help="of each system (default 5)")
    made.add_argument("--groups", metavar="NAMES", help="of workloads, with commas between")
    made.add_argument("--only", metavar="TEXT", help="systems whose name holds TEXT")
    made.add_argument("--alone", action="store_true", help="raftpico only")
    made.add_argument("--list", action="store_true", help="show groups, workloads and systems")
    made.add_argument("--own-load", action="store_true", help="use jlot for nothing")
    made.add_argument("--json", metavar="FILE", type=Path, help="write every round's figures")
    made.add_argument("--svg", metavar="FILE", type=Path, help="write the picture")
    made.add_argument(
        "--readme", action="store_true", help=f"rewrite README.md's figures and {PICTURE}"
    )
    made.add_argument(
        "--from", dest="sources", metavar="FILE", type=Path, nargs="+", help="measure nothing"
    )
    made.add_argument(
        "--directory", type=Path, help="where the data files go: a real disk, not a RAM disk"
    )
    return made


def choose_groups(options: argparse.Namespace) -> list[Group]:
    names = [g.name for g in GROUPS]
    wanted = QUICK if options.quick else names
    if options.groups:
        wanted = options.groups.split(",")
    unknown = [name for name in wanted if name not in names]
    if unknown:
        sys.exit(f"bench: no group {unknown[0]!r}; there are {', '.join(names)}")
    return [g for g in GROUPS if g.name in wanted]


def choose_systems(options: argparse.Namespace) -> list[System]:
    systems, missing = find_systems()
    for line in missing:
        sys.stderr.write(f"not here: {line}\n")
    if options.only:
        systems = [s for s in systems if options.only.lower() in s.name.lower()]
    if options.alone:
        systems = [s for s in systems if s.name == RAFTPICO]
    if not systems:
        sys.exit(f"bench: no system's name holds {options.only!r}")
    return systems


def list_all(groups: Sequence[Group], systems: Sequence[System], quick: bool) -> str:
    lines = []
    for group in groups:
        names = [s.name for s in systems if s.name in group.systems]
        lines.append(f"{group.name}: {', '.join(names)}")
        lines += [f"    {row}" for row in group.rows(quick)]
    return "\n".join(lines)


def run_group(
    group: Group, system: System, context: Context, results: Results, progress: Progress
) -> None:
    """A stall ends the group for this system and round, and is told at the end."""
    where = f"round {context.seed + 1}: {group.name}: {system.name}"
    progress.show(where)
    try:
        for row, figures in group.run(context, system):
            results.add(group.name, row, system.name, figures)
            progress.done += 1
            progress.show(f"{where}: {row}")
    except (Stall, TimeoutError, RuntimeError, OSError, ValueError, StopIteration) as error:
        results.stalls.append(f"{system.name}, round {context.seed + 1}, {group.name}: {error}")
        progress.note(results.stalls[-1])


def measure(options: argparse.Namespace) -> Results:
    groups, systems = choose_groups(options), choose_systems(options)
    results = Results()
    rounds = options.rounds or (1 if options.quick else 5)
    jlot = not options.own_load and find_jlot() is not None
    results.options = {"rounds": rounds, "quick": options.quick, "jlot": jlot}
    if raise_descriptors() < DESCRIPTORS:
        sys.stderr.write("10,000 connections need more descriptors: ulimit -n\n")
    pairs = [(g, s) for g in groups for s in systems if s.name in g.systems]
    steps = [len(g.rows(options.quick)) for g, _ in pairs]
    progress = Progress(max(1, rounds * sum(steps)))
    try:
        for seed in range(rounds):
            context = Context(options.quick, options.directory, seed, jlot)
            for at, (group, system) in enumerate(pairs):
                progress.done = seed * sum(steps) + sum(steps[:at])
                run_group(group, system, context, results, progress)
    except KeyboardInterrupt:
        progress.note("interrupted: what follows is what was measured until then")
    finally:
        progress.end()
        remove_generator()
    return results


def main() -> int:
    options = parser().parse_args()
    if options.list:
        print(list_all(choose_groups(options), choose_systems(options), options.quick))
        return 0
    results = Results.read(*options.sources) if options.sources else measure(options)
    print(report.everything(results))
    if options.json:
        results.write(options.json)
    picture = draw(results, report.heading(results))
    if options.svg:
        options.svg.write_text(picture)
    if options.readme:
        (ROOT / PICTURE).write_text(picture)
        words = "python examples/bench.py" + (" --quick" if results.options["quick"] else "")
        block = report.readme_block(results, words, PICTURE)
        report.rewrite_readme(ROOT / "README.md", block)
    return 1 if any(stall.startswith(RAFTPICO) for stall in results.stalls) else 0


if __name__ == "__main__":
    sys.exit(main())
