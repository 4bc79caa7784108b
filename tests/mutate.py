#!/usr/bin/env python3
"""Breaks the core on purpose, one line at a time, and says what noticed.

The mistakes stand in mutations/core.txt. Each is made in a temporary copy of csrc; then the
scenarios named with it are played, then the others, the unit tests of the core, and the
simulator's first seeds, up to the first red one; with --all, up to the first of each kind. The
table goes to mutations/core-results.md when every mistake was tried:

    python3 tests/mutate.py                       the table, anew (some minutes)
    python3 tests/mutate.py --all figure-8 late-sync
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutations" / "core.txt"
RESULTS = ROOT / "tests" / "mutations" / "core-results.md"
SEEDS = 2000
SECONDS_MAX = 300
KINDS = ("scenario", "unit test", "seed")
UNITS = sorted(path.stem for path in (ROOT / "tests" / "c").glob("test_raft*.c"))
SCENARIOS = sorted((ROOT / "tests" / "scenarios").glob("*.txt"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-w"]
# As test_scenarios.py has them: shrunk, so that a scenario can reach them.
LIMITS = ["-DRAFT_UNCOMMITTED_ENTRIES_MAX=16", "-DRAFT_IN_FLIGHT_ENTRIES_MAX=12"]


@dataclass
class Mutation:
    """A mistake: what it breaks, and the lines that make it."""

    id: str
    breaks: str
    first: list[str] = field(default_factory=list)
    file: str = ""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def apply(self, csrc: Path) -> None:
        """Make it in a copy of csrc; each old text must stand there exactly once."""
        path = csrc / "raft" / self.file
        text = path.read_text()
        for old, new in zip(self.old, self.new, strict=True):
            assert text.count(old) == 1, (
                f"{self.id}: {text.count(old)} times in {path.name}: {old}"
            )
            text = text.replace(old, new)
        path.write_text(text)


def read_list(path: Path = LIST) -> list[Mutation]:
    """The mistakes of a list, in its order."""
    mutations: list[Mutation] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            name, _, breaks = line.partition(": ")
            mutations.append(Mutation(name, breaks))
        elif line.startswith("    first "):
            mutations[-1].first += line.split()[1:]
        elif line.startswith("    - "):
            mutations[-1].old.append(line[6:])
        elif line.startswith("    + "):
            mutations[-1].new.append(line[6:])
        else:
            assert re.fullmatch(r"    \w+\.[ch]", line), f"{path}:{number}: {line}"
            mutations[-1].file = line.strip()
    return mutations


def compile_all(sources: list[Path], csrc: Path, folder: Path, flags: list[str]) -> list[Path]:
    """Objects of `sources`, made in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{csrc}", f"-I{ROOT / 'tests' / 'c'}"]
    command = ["cc", *FLAGS, *flags, *includes, "-c", *map(str, sources)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [folder / f"{source.stem}.o" for source in sources]


class Builder:
    """The programs around the core, compiled once; the core, once for each mistake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tests, csrc = ROOT / "tests", ROOT / "csrc"
        base = [csrc / "base" / "memory.c", csrc / "base" / "random.c"]
        units = [tests / "c" / f"{name}.c" for name in UNITS]
        self.around = {
            "sim": compile_all(
                [*sorted(tests.glob("sim/*.c")), *base], csrc, folder / "sim", []
            ),
            "scenario": compile_all(
                [*sorted(tests.glob("scenario/*.c")), *base], csrc, folder / "scenario", LIMITS
            ),
        }
        core = sorted((csrc / "raft").glob("*.c"))
        self.core = {
            "plain": compile_all(core, csrc, folder / "plain", []),
            "shrunk": compile_all(core, csrc, folder / "shrunk", LIMITS),
        }
        rig = compile_all([tests / "c" / "raftrig.c", *base], csrc, folder / "rig", [])
        for unit in units:
            self.around[unit.stem] = [*compile_all([unit], csrc, folder / unit.stem, []), *rig]

    def programs(self, csrc: Path, changed: str, folder: Path) -> dict[str, Path]:
        """The programs with the core of `csrc`, where one file was changed."""
        core = csrc / "raft"
        stale = sorted(core.glob("*.c")) if changed.endswith(".h") else [core / changed]
        objects = {}
        for kind, flags in (("plain", []), ("shrunk", LIMITS)):
            fresh = compile_all(stale, csrc, folder / kind, flags)
            names = {path.name for path in fresh}
            objects[kind] = [*fresh, *(p for p in self.core[kind] if p.name not in names)]
        programs = {}
        for name, around in self.around.items():
            core_objects = objects["shrunk" if name == "scenario" else "plain"]
            programs[name] = folder / name
            command = ["cc", *map(str, [*around, *core_objects]), "-o", str(programs[name])]
            subprocess.run(command, check=True, timeout=SECONDS_MAX)
        return programs


def run(command: list[str]) -> tuple[bool, str]:
    """Whether a program is content, and what it said; one that hangs is not."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS_MAX, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return False, "hangs"
    return done.returncode == 0, done.stdout + done.stderr


def ask_scenarios(programs: dict[str, Path], mutation: Mutation) -> str:
    """The name of the first scenario that differs; those named with the mistake come first."""
    named = [p for p in SCENARIOS if any(p.name.startswith(name) for name in mutation.first)]
    for path in [*named, *(p for p in SCENARIOS if p not in named)]:
        good, said = run([str(programs["scenario"]), "--check", str(path)])
        if not good:
            return path.stem + (" (assert)" if "broken invariant" in said else "")
    return ""


def ask_units(programs: dict[str, Path], mutation: Mutation) -> str:
    """The name of the first unit test that fails."""
    for name in UNITS:
        good, said = run([str(programs[name])])
        if not good:
            started = re.findall(r"^test (\w+)", said, re.M)
            return f"{started[-1] if started else name}"
    return ""


def ask_seeds(programs: dict[str, Path], mutation: Mutation) -> str:
    """The first of the simulator's seeds that fails."""
    step = 50
    for first in range(1, SEEDS + 1, step):
        seeds = f"{first}-{first + step - 1}"
        good, said = run([str(programs["sim"]), "--seeds", seeds, "--keep"])
        if not good:
            found = re.search(r"seed (\d+): VIOLATION|ASSERT in seed (\d+)", said)
            return f"{(found[1] or found[2]) if found else seeds + ' ' + said[-40:]}"
    return ""


Ask = Callable[[dict[str, Path], Mutation], str]


def try_one(
    builder: Builder, mutation: Mutation, asks: Sequence[Ask], everything: bool
) -> dict[str, str]:
    """What noticed a mistake, by kind; "" where nothing did, no key where none was asked."""
    folder = Path(tempfile.mkdtemp(dir=builder.folder))
    csrc = folder / "csrc"
    shutil.copytree(ROOT / "csrc" / "raft", csrc / "raft")
    shutil.copytree(ROOT / "csrc" / "base", csrc / "base")
    mutation.apply(csrc)
    programs = builder.programs(csrc, mutation.file, folder)
    found: dict[str, str] = {}
    for kind, ask in zip(KINDS, asks, strict=False):
        found[kind] = ask(programs, mutation)
        if found[kind] and not everything:
            break
    shutil.rmtree(folder)
    return found


def verdict(found: dict[str, str]) -> str:
    """One line: what noticed, or SURVIVED."""
    seen = [f"{kind} {name}" for kind, name in found.items() if name]
    return ", ".join(seen) or "SURVIVED"


def run_mutations(
    mutations: list[Mutation], everything: bool = False
) -> dict[str, dict[str, str]]:
    """id -> what noticed each of them."""
    folder = Path(tempfile.mkdtemp(prefix="raftpico-mutate-"))
    try:
        builder = Builder(folder)
        sound = Mutation("none", "nothing", file="raft.c")
        found = try_one(builder, sound, (ask_scenarios, ask_units), everything=True)
        assert not any(found.values()), f"without a mistake: {verdict(found)}"
        results = {}
        with ThreadPoolExecutor(2) as pool:
            asks = (ask_scenarios, ask_units, ask_seeds)
            tried = pool.map(lambda m: try_one(builder, m, asks, everything), mutations)
            for mutation, found in zip(mutations, tried, strict=True):
                results[mutation.id] = found
                print(f"{mutation.id}: {verdict(found)}", flush=True)
        return results
    finally:
        shutil.rmtree(folder)


def write_results(mutations: list[Mutation], results: dict[str, dict[str, str]]) -> None:
    """The table, for people."""
    survived = [m.id for m in mutations if verdict(results[m.id]) == "SURVIVED"]
    counts = {kind: sum(bool(r.get(kind)) for r in results.values()) for kind in KINDS}
    lines = [
        "# What noticed the mistakes of core.txt",
        "",
        "Written by `python3 tests/mutate.py` (with `--all` it goes on after the first red).",
        "Each mistake was tried alone. A dash: asked, and did not notice; blank: not asked any",
        f"more. The simulator's seeds are 1 to {SEEDS}. `(assert)`: one of the core's own",
        "invariants noticed.",
        "",
        f"{len(mutations)} mistakes, {len(survived)} unnoticed; noticed by a scenario: "
        f"{counts['scenario']}, by a unit test: {counts['unit test']}, by the simulator: "
        f"{counts['seed']}.",
        "",
        "| mistake | breaks | scenario | unit test | first seed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for mutation in mutations:
        found = [results[mutation.id].get(kind, "") or "-" for kind in KINDS]
        found = [
            name if kind in results[mutation.id] else " "
            for kind, name in zip(KINDS, found, strict=True)
        ]
        breaks = mutation.breaks.replace("|", "\\|")
        lines.append(f"| {mutation.id} | {breaks} | {' | '.join(found)} |")
    RESULTS.write_text("\n".join(lines) + "\n")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ids", nargs="*", help="these mistakes alone; the table is not written")
    parser.add_argument("--all", action="store_true", help="do not stop at the first red")
    options = parser.parse_args()
    every = read_list()
    unknown = set(options.ids) - {m.id for m in every}
    if unknown:
        parser.error(f"no such mistake: {', '.join(sorted(unknown))}")
    chosen = [m for m in every if not options.ids or m.id in options.ids]
    results = run_mutations(chosen, options.all)
    if not options.ids:
        write_results(every, results)
    return 1 if any(verdict(found) == "SURVIVED" for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
