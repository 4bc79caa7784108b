"""The benchmark: a short run of it, its counters, and what it makes of figures."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from cluster import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))

from benchmark import goals, groups, picture, processes, report  # noqa: E402
from benchmark.results import Results  # noqa: E402
from benchmark.systems import RAFTPICO, RUST  # noqa: E402

STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes"]
STRICT += ["-Wmissing-prototypes", "-Werror", "-std=c11", "-D_GNU_SOURCE", "-O1"]


def test_a_short_run(tmp_path: Path) -> None:
    """The command itself: figures, table, picture, and nothing left behind."""
    out, drawn = tmp_path / "out.json", tmp_path / "out.svg"
    command = [sys.executable, str(EXAMPLES / "bench.py"), "--quick", "--alone", "--own-load"]
    command += ["--groups", "failover", "--json", str(out), "--svg", str(drawn)]
    command += ["--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["stalls"] == []
    (figures,) = found["rounds"]["failover"][groups.FAILOVER][RAFTPICO]
    assert 0 < figures["failover_ms"] < 60_000
    assert groups.FAILOVER in done.stdout
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    assert not list(tmp_path.glob("raftpico-*")), "files are left behind"


def test_the_generator_measures_a_cluster(tmp_path: Path) -> None:
    """By its own generator: each request answered once, with its processor time."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from benchmark import systems, shape, load\n"
        "with systems.raftpico().running(None) as c:\n"
        "    found = [c.run(shape.Shape(k, 50, 2000, n, idle=3), 1)\n"
        "             for k in c.kinds for n in (0, 40)]\n"
        "load.remove_generator()\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLES)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    for figures in json.loads(done.stdout):
        assert (figures["answered"], figures["errors"], figures["strange"]) == (2000, 0, 0)
        assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
        assert figures["rate"] == pytest.approx(2000 / figures["seconds"], rel=0.01)


def test_the_generator_compiles_without_a_warning(tmp_path: Path) -> None:
    sources = [str(path) for path in sorted((EXAMPLES / "benchmark").glob("load*.c"))]
    command = ["cc", *STRICT, *sources, "-o", str(tmp_path / "load")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_strace_writes_is_counted() -> None:
    """Sends between servers apart from those to clients; calls that were interrupted once."""
    dial = "TCP:[127.0.0.1:50001->127.0.0.1:4001]"
    client = "TCP:[127.0.0.1:4000->127.0.0.1:60000]"
    lines = [
        f'7 write(9<{dial}>, ""..., 100) = 100',
        f'7 write(9<{dial}>, ""..., 50 <unfinished ...>',
        "8 fdatasync(5</data/log>) = 0",
        "7 <... write resumed>) = 20",
        f'7 sendto(11<{client}>, ""..., 10, 0, NULL, 0) = 10',
        '7 write(4<anon_inode:[eventfd]>, ""..., 8) = 8',
    ]
    there = ['9 write(8<TCP:[127.0.0.1:4001->127.0.0.1:50001]>, ""..., 5) = -1 EAGAIN (Re)']
    counts = processes.Counts(peer_bytes_by_member=[0, 0])
    parts = [list(processes.whole_calls(part)) for part in (lines, there)]
    processes.fill(counts, parts, [4000, 4001])
    assert (counts.peer_sends, counts.peer_bytes_by_member) == (3, [120, 0])
    assert (counts.client_sends, counts.syncs) == (1, 1)
    assert counts.calls["write"] == 4


def made_up() -> Results:
    """Twice the rate and half the time of the other one."""
    results = Results()
    results.options = {"rounds": 3, "quick": False, "jlot": True}
    names = ("rate", "p50_ms", "p90_ms", "p99_ms", "processor_s", "errors")
    for system, by in ((RAFTPICO, 2.0), (RUST, 1.0)):
        for spread in (0.9, 1.0, 1.3):
            for row, _ in groups.WORK:
                values = (1000 * by * spread, 1 / by, 2 / by, 3 / by, 4 / by, 0)
                figures = dict(zip(names, values, strict=True))
                results.add("work", row, system, figures)
    results.add("failover", groups.FAILOVER, RAFTPICO, {"failover_ms": 50.0})
    results.add("failover", groups.FAILOVER, RUST, {"failover_ms": 3000.0})
    return results


def test_goals_are_reached_or_missed() -> None:
    results = made_up()
    put = goals.to_rust("Put, 1,000 at a time", "rate", least=3)
    assert put.value(results.look) == 2.0  # of medians
    assert not put.reached(2.0)
    assert put.reached(3.0)
    table = report.goals_table(results)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "missed" in lines["Put, 1,000 at a time: rate, to the Rust release"]
    local = "Get local query, 1,000 at a time: rate, to the Rust release"
    assert "reached" in lines[local]
    assert "reached" in lines["leader killed, first answered Put, to the Rust release"]
    assert not any("PySyncObj" in line for line in lines), "a goal that was not measured"


def test_every_goal_names_a_row_that_is_run() -> None:
    rows = {row for group in groups.GROUPS for row in group.rows(False)}
    for goal in goals.GOALS:
        assert goal.row in rows, goal
        assert goal.over is None or goal.over[0] in rows, goal


def test_the_readme_gets_table_and_picture(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nbehind\n")
    results = made_up()
    block = report.readme_block(results, "python examples/bench.py", "examples/figures.svg")
    report.rewrite_readme(readme, block)
    text = readme.read_text()
    assert text.startswith("before\n<!-- figures -->\n")
    assert text.endswith("<!-- /figures -->\nbehind\n")
    assert "old" not in text
    assert "](examples/figures.svg)" in text
    assert "| Put, 1,000 at a time" in text
    assert "of these goals are missed" in text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="no block"):
        report.rewrite_readme(readme, block)


def test_the_picture_shows_every_row_and_system() -> None:
    results = made_up()
    drawn = picture.draw(results, report.heading(results))
    root = ElementTree.fromstring(drawn)
    words = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {RAFTPICO, RUST, groups.FAILOVER, *(row for row, _ in groups.WORK)} <= words
    bars = [e for e in root.iter() if e.tag.endswith("rect") and e.get("height") == "11"]
    assert len(bars) == 2 * (len(groups.WORK) + 1)
    assert all(float(bar.get("width", "0")) > 0 for bar in bars)


def test_results_are_read_back(tmp_path: Path) -> None:
    results = made_up()
    results.write(tmp_path / "figures.json")
    again = Results.read(tmp_path / "figures.json")
    assert report.everything(again) == report.everything(results)


def test_results_of_several_runs_are_put_together(tmp_path: Path) -> None:
    first, second = made_up(), made_up()
    del first.rounds["failover"]
    second.rounds = {"failover": second.rounds["failover"]}
    second.stalls = ["Redis (one), round 1, work: nothing came"]
    for name, results in (("a.json", first), ("b.json", second)):
        results.write(tmp_path / name)
    together = Results.read(tmp_path / "a.json", tmp_path / "b.json")
    assert list(together.rounds) == ["work", "failover"]
    assert together.look(groups.FAILOVER, RAFTPICO) == {"failover_ms": 50.0}
    assert "medians of 1 to 3 rounds" in report.heading(together)
    assert together.stalls == second.stalls
    again = Results.read(tmp_path / "a.json", tmp_path / "a.json")
    assert len(again.rounds["work"]["Put, 1 at a time"][RUST]) == 6
