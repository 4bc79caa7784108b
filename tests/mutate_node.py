#!/usr/bin/env python3
"""Breaks node/ on purpose, one mistake at a time, and says which simulated seed noticed.

The mistakes stand in mutations/node.txt. Each is made in a copy of its file; the whole-node
simulator is linked with it and runs its first seeds, up to the first red one. What was tried
goes into the table mutations/node-results.md:

    python3 tests/mutate_node.py                  all of them (some minutes)
    python3 tests/mutate_node.py tag-applied-again answer-dropped
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from test_node_simulator import LIMITS, SOURCES

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutations" / "node.txt"
RESULTS = ROOT / "tests" / "mutations" / "node-results.md"
SEEDS = 1000
SECONDS_MAX = 300
PROCESSES = 2
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-w", *(f"-D{k}={v}u" for k, v in LIMITS.items())]


@dataclass
class Mutation:
    """A mistake: what it breaks, and the lines that make it."""

    id: str
    breaks: str
    file: str = ""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The file with the mistake; each old text must stand there exactly once."""
        text = (ROOT / "csrc" / self.file).read_text()
        for old, new in zip(self.old, self.new, strict=True):
            assert text.count(old) == 1, f"{self.id}: {text.count(old)} times: {old}"
            text = text.replace(old, new)
        return text


def read_list(path: Path = LIST) -> list[Mutation]:
    """The mistakes of a list, in its order."""
    mutations: list[Mutation] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            name, _, breaks = line.partition(": ")
            mutations.append(Mutation(name, breaks))
        elif line.startswith("    - "):
            mutations[-1].old.append(line[6:])
        elif line.startswith("    + "):
            mutations[-1].new.append(line[6:])
        else:
            assert re.fullmatch(r"    node/\w+\.[ch]", line), f"{path}:{number}: {line}"
            mutations[-1].file = line.strip()
    return mutations


def compile_one(source: Path, target: Path) -> Path:
    """One object, of a file that includes what stands in csrc."""
    command = ["cc", *FLAGS, f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'nodesim'}"]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def object_name(source: str) -> str:
    """Rooms have files of the same name."""
    return source.replace("/", "-").removesuffix(".c") + ".o"


def compile_sound(folder: Path) -> dict[str, Path]:
    """Every object without a mistake, by its source."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        made = pool.map(lambda s: compile_one(ROOT / s, folder / object_name(s)), SOURCES)
        return dict(zip(SOURCES, made, strict=True))


def first_red_seed(objects: list[Path], program: Path) -> str:
    """What the simulator says of the first seed that fails; "" where none does."""
    subprocess.run(["cc", *map(str, objects), "-o", str(program), "-ljansson"], check=True)
    try:
        done = subprocess.run(
            [str(program), "--seeds", f"1-{SEEDS}", "--once"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    found = re.search(r"seed (\d+): VIOLATION(?: at [^:]*)?: (.*)", done.stdout)
    if done.returncode == 0:
        return ""
    return f"seed {found[1]}: {found[2][:90]}" if found else "ends badly"


def try_one(sound: dict[str, Path], mutation: Mutation, folder: Path) -> str:
    """What noticed a mistake; "" where nothing did."""
    source = folder / f"{mutation.id}.c"
    source.write_text(mutation.text())
    objects = dict(sound)
    objects[f"csrc/{mutation.file}"] = compile_one(source, folder / f"{mutation.id}.o")
    return first_red_seed(list(objects.values()), folder / mutation.id)


def read_results() -> dict[str, str]:
    """What the table says, by id."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    rows = re.findall(r"^\| ([\w-]+) \| .* \| (.*) \|$", text, re.M)
    return {name: "" if found == "-" else found for name, found in rows}


def write_results(mutations: list[Mutation], results: dict[str, str]) -> None:
    """The table, for people; what was not tried now stays as it was."""
    results = {**{m.id: "not tried" for m in mutations}, **read_results(), **results}
    unnoticed = sum(not results[m.id] for m in mutations)
    lines = [
        "# What noticed the mistakes of node.txt",
        "",
        "Written by `python3 tests/mutate_node.py`. Each mistake was tried alone, on the",
        f"whole-node simulator's first {SEEDS} seeds; the first that was red ended the search.",
        "",
        f"{len(mutations)} mistakes, {unnoticed} unnoticed.",
        "",
        "| mistake | breaks | noticed by |",
        "| --- | --- | --- |",
    ]
    for mutation in mutations:
        found = (results[mutation.id] or "-").replace("|", "\\|")
        lines.append(f"| {mutation.id} | {mutation.breaks} | {found} |")
    RESULTS.write_text("\n".join(lines) + "\n")


def run_mutations(mutations: list[Mutation], every: list[Mutation]) -> dict[str, str]:
    """id -> what noticed each of them; the table is kept up to date."""
    folder = Path(tempfile.mkdtemp(prefix="raftpico-mutate-node-"))
    try:
        sound = compile_sound(folder)
        results = {}
        with ThreadPoolExecutor(PROCESSES) as pool:
            tried = pool.map(lambda m: try_one(sound, m, folder), mutations)
            for mutation, found in zip(mutations, tried, strict=True):
                results[mutation.id] = found
                write_results(every, results)
                print(f"{mutation.id}: {found or 'SURVIVED'}", flush=True)
        return results
    finally:
        shutil.rmtree(folder)


def main() -> int:
    """See the module."""
    every = read_list()
    wanted = sys.argv[1:]
    unknown = set(wanted) - {m.id for m in every}
    if unknown:
        print(f"no such mistake: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [m for m in every if not wanted or m.id in wanted]
    results = run_mutations(chosen, every)
    return 1 if any(not found for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
