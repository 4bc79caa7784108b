"""The tables: every row, the goals, and the block of README.md. All of it is Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .goals import GOALS, Goal
from .groups import WORK
from .load import Figures
from .results import Results
from .systems import RAFTPICO, RUST

# Figures in the order of the columns: name, head, format.
COLUMNS = (
    ("rate", "rate/s", "{:,.0f}"),
    ("mb_per_s", "MB/s", "{:,.0f}"),
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p90_ms", "p90 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("max_ms", "max ms", "{:.1f}"),
    ("processor_s", "processor s/100k", "{:.2f}"),
    ("errors", "errors", "{:.0f}"),
    ("generator_share", "generator", "{:.0%}"),
    ("restart_s", "restart s", "{:.2f}"),
    ("failover_ms", "failover ms", "{:.0f}"),
    ("peer_sends", "sends", "{:.4f}"),
    ("peer_bytes", "bytes sent", "{:.0f}"),
    ("times_sent", "times sent", "{:.3f}"),
    ("client_sends", "sends to clients", "{:.4f}"),
    ("syncs", "syncs", "{:.4f}"),
    ("system_calls", "system calls", "{:.3f}"),
    ("futexes", "futex calls", "{:.3f}"),
    ("log_bytes", "log bytes", "{:.0f}"),
    ("bytes_an_entry", "bytes an entry", "{:.0f}"),
    ("snapshots", "snapshots", "{:.0f}"),
    ("elections", "elections", "{:.0f}"),
)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row its head, with columns of even width."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def ratio(ours: Figures, theirs: Figures, name: str) -> str:
    if not ours.get(name) or not theirs.get(name):
        return ""
    return f"{ours[name] / theirs[name]:.2f}"


def group_table(results: Results, group: str) -> str:
    """Medians of every row of a group; the last columns are ours to theirs."""
    rows = results.rounds[group]
    measured = [f for row in rows.values() for s in row.values() for f in s]
    columns = [c for c in COLUMNS if any(c[0] in figures for figures in measured)]
    several = len(results.systems(group)) > 1
    compared = [("rate", "rate x"), ("p50_ms", "p50 x"), ("processor_s", "processor x")]
    compared = [c for c in compared if several and any(c[0] == n for n, _, _ in columns)]
    table = [["work", "system", *(head for _, head, _ in columns), "rounds"]]
    table[0] += [head for _, head in compared]
    for row, by_system in rows.items():
        for system, rounds in by_system.items():
            found = results.look(row, system)
            cells = [form.format(found[n]) if n in found else "" for n, _, form in columns]
            ratios = [ratio(results.look(row, RAFTPICO), found, n) for n, _ in compared]
            if system == RAFTPICO:
                ratios = [""] * len(compared)
            table.append([row, system, *cells, str(len(rounds)), *ratios])
    return markdown(table)


def goals_table(results: Results, goals: Sequence[Goal] = GOALS) -> str:
    """Each goal that was measured, and the word "reached" or "missed"."""
    table = [["goal", "", "measured", ""]]
    for goal in goals:
        value = goal.value(results.look)
        if value is not None:
            word = "reached" if goal.reached(value) else "missed"
            table.append([goal.what, goal.limit, f"{value:.3g}", word])
    return markdown(table) if len(table) > 1 else ""


def heading(results: Results) -> str:
    about = results.machine
    counts = [len(r) for g in results.rounds.values() for s in g.values() for r in s.values()]
    least, most = min(counts, default=1), max(counts, default=1)
    rounds = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"{about['processor']}, {about['processors']} processors, {about['system']}, "
        f"Python {about['python']}, {about['date']}; medians of {rounds} "
        f"round{'s' if most != 1 else ''}"
    )


def everything(results: Results) -> str:
    """What is printed at the end."""
    parts = [heading(results)]
    for group in results.rounds:
        parts.append(f"{group}\n\n{group_table(results, group)}")
    goals = goals_table(results)
    if goals:
        parts.append(f"goals\n\n{goals}")
    parts += [f"never answered: {stall}" for stall in results.stalls]
    return "\n\n".join(parts)


# --- README.md --------------------------------------------------------------------------------

BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"


def shown(found: Figures, in_flight: int) -> str:
    """A rate, or the median time where requests go one at a time."""
    if not found:
        return ""
    return f"{found['p50_ms']:.2f} ms" if in_flight == 1 else f"{found['rate']:,.0f}/s"


def work_table(results: Results) -> str:
    systems = results.systems("work")
    table = [["work", *systems, "processor time, to the Rust release"]]
    for row, shape in WORK:
        found = {s: results.look(row, s) for s in systems}
        cells = [shown(found[s], shape.in_flight) for s in systems]
        share = ratio(found.get(RAFTPICO, {}), found.get(RUST, {}), "processor_s")
        table.append([row, *cells, share])
    return markdown(table)


def readme_block(results: Results, command: str, picture: str) -> str:
    """What stands between the two marks."""
    missed = [g for g in GOALS if (v := g.value(results.look)) is not None and not g.reached(v)]
    words = ["", f"`{command}` on {heading(results)}."]
    words += [
        "Three members with synced data files; the load generator shares the machine.",
        "Processor time is that of all three servers. PySyncObj's journal is never synced, and",
        "its members make their own load, without clients; etcd is driven by gRPC; Redis is",
        "one server that is not replicated, over 50 connections.",
        "",
        f"![Figures]({picture})",
        "",
        work_table(results),
        "",
        "What was aimed at, and what came of it:",
        "",
        goals_table(results),
    ]
    if missed:
        words += ["", f"{len(missed)} of these goals are missed."]
    words += [f"\nNever answered: {stall}." for stall in results.stalls]
    return "\n".join([*words[1:], ""])


def rewrite_readme(path: Path, block: str) -> None:
    """Put the block between the marks; ValueError where they are not there."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{path}: no block between {BEGIN.strip()} and {END.strip()}")
    path.write_text(pattern.sub(lambda _: BEGIN + block + END, text), encoding="utf-8")
