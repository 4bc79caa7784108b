"""python -m raftpico.log: it shows what is there, and judges a directory as the engine does."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from corruption import Image, corrupt, crc32c, read_image, seal, write_image

import raftpico
from raftpico import _core
from raftpico._inspect import Report, inspect
from raftpico.kvs import KeyValueStore

MakeCluster = Callable[..., Cluster]

LOG = (sys.executable, "-m", "raftpico.log")
SMALL = {"segment_bytes": 3000}
CI_CORRUPTIONS = 500


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tool(*arguments: object, status: int = 0) -> str:
    """What it prints, on both streams."""
    done = subprocess.run(
        [*LOG, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def tool_json(*arguments: object, status: int = 0) -> Any:
    return json.loads(tool(*arguments, "--json", status=status))


class Made:
    """A member's directory: as a kill leaves it, and as a graceful stop does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "made"
        with raftpico.Server(KeyValueStore(), "127.0.0.1:0", self.path, **SMALL) as server:
            self.address = server.addr
            server.create_cluster()
            for i in range(60):
                server.command({"Put": [f"k{i}", "x" * (i * 7 % 150)]})
                if i == 35:
                    self.snapshot_index = server.take_snapshot()
            self.killed = read_image(self.path)
        self.closed = read_image(self.path)
        self.lines = [
            line + "\n"
            for name in sorted(n for n in self.closed if n.startswith("log-"))
            for line in self.closed[name].decode().splitlines()
            if line
        ]

    def copy(self, directory: Path, image: Image | None = None) -> Path:
        write_image(self.closed if image is None else image, directory)
        return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("log"))


# --- it agrees with the engine ----------------------------------------------------------------


def said_by_engine(directory: Path, address: str) -> tuple[object, ...]:
    try:
        found = _core.recover_directory(str(directory), address, False)
    except (raftpico.DataCorrupt, raftpico.DataMismatch) as error:
        assert ".jsonl" in str(error)
        return ("refused",)
    return tuple(
        found[name] for name in ("quarantined", "tail_cut", "last_index", "snapshot_index")
    )


def said_by_tool(report: Report) -> tuple[object, ...]:
    if report.refused:
        return ("refused",)
    return (report.quarantined, report.tail_cut, report.last_index, report.snapshot_index)


def sweep(made: Made, folder: Path, count: int, first_seed: int) -> dict[str, int]:
    """So many single corruptions: tool and engine come to the same, and it is explained."""
    directory = folder / "swept"
    tally = {"sound": 0, "torn": 0, "quarantine": 0, "refused": 0}
    for seed in range(first_seed, first_seed + count):
        dice = random.Random(seed)
        image, what = corrupt(made.killed if seed % 2 else made.closed, dice)
        write_image(image, directory)
        report = inspect(directory)
        verdict = said_by_tool(report)
        where = f"seed {seed}: {what}: {report.findings}"
        assert read_image(directory) == image, f"{where}: it was not left as it was"
        assert verdict == said_by_engine(directory, made.address), where
        assert report.sound or any(f.advice and f.what for f in report.findings), where
        if not report.refused:
            after = inspect(directory)
            assert said_by_tool(after) == (verdict[0], False, *verdict[2:]), where
        name = "refused" if report.refused else "quarantine" if report.quarantined else ""
        tally[name or ("torn" if report.tail_cut else "sound")] += 1
    return tally


def test_it_judges_corruptions_as_the_engine_does(made: Made, tmp_path: Path) -> None:
    tally = sweep(made, tmp_path, CI_CORRUPTIONS, 1)
    assert min(tally.values()) >= CI_CORRUPTIONS // 50, tally


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"index":', b"x\n"])
def test_a_file_that_overlaps_is_damage(made: Made, tmp_path: Path, content: bytes) -> None:
    last = max(name for name in made.closed if name.startswith("log-"))
    name = f"log-{int(last[4:-6]) + 1:020d}.jsonl"
    directory = made.copy(tmp_path / "copy", {**made.closed, name: content})
    verdict = said_by_tool(inspect(directory))
    assert verdict == (True, False, *said_by_tool(inspect(made.copy(tmp_path / "sound")))[2:])
    assert verdict == said_by_engine(directory, made.address)


def test_a_file_that_begins_before_its_name_is_damage(made: Made, tmp_path: Path) -> None:
    """Entries up to the snapshot's in a file that is named after the next one."""
    (snapshot,) = [name for name in made.closed if name.startswith("snapshot-")]
    base = int(snapshot[9:-6])
    kept = {name: data for name, data in made.closed.items() if not name.startswith("log-")}
    logs = sorted(name for name in made.closed if name.startswith("log-"))
    lines = b"".join(made.closed[name] for name in logs).strip(b"\n").split(b"\n")
    upto = [line for line in lines if json.loads(line)["index"] <= base]
    assert upto, "the log holds nothing that the snapshot covers"
    kept[f"log-{1:020d}.jsonl"] = b""
    kept[f"log-{base + 1:020d}.jsonl"] = b"".join(line + b"\n" for line in upto)
    directory = made.copy(tmp_path / "copy", kept)
    verdict = said_by_tool(inspect(directory))
    assert verdict == (True, False, base, base)
    assert verdict == said_by_engine(directory, made.address)


@pytest.mark.slow
def test_it_judges_100000_corruptions_as_the_engine_does(made: Made, tmp_path: Path) -> None:
    print(sweep(made, tmp_path, 100_000, 1_000_000))


# --- show and follow --------------------------------------------------------------------------


def test_show_gives_the_lines_as_they_are_stored(made: Made) -> None:
    directory = made.copy(made.path)
    assert tool("show", directory, "--json").splitlines(True) == made.lines
    assert tool(directory, "--json", "--from", 40).splitlines(True) == made.lines[39:]
    assert tool("show", directory, "--json", "--last", 3).splitlines(True) == made.lines[-3:]
    assert tool("show", directory, "--json", "--from", 5, "--to", 7) == "".join(made.lines[4:7])
    assert tool("show", directory, "--json", "--grep", '"k1"').count("\n") == 1
    assert tool("show", directory, "--json", "--term", 99) == ""
    kinds = ["--kind", "noop", "--kind", "configuration"]
    assert '"Put"' not in (others := tool("show", directory, "--json", *kinds))
    assert '"noop":true' in others and '"configuration":{' in others
    shown = tool("show", directory)
    assert f"snapshot of entry {made.snapshot_index}" in shown and made.address in shown
    for index, line in enumerate(made.lines, 1):
        entry = json.loads(line)
        row = next(r for r in shown.splitlines() if r.split()[0] == str(index))
        assert row.split()[1] == str(entry["term"])
        if "input" in entry:
            assert row.endswith(json.dumps(entry["input"], separators=(",", ":")))


def test_show_names_a_broken_line_and_goes_on(made: Made, tmp_path: Path) -> None:
    image = dict(made.closed)
    name = sorted(n for n in image if n.startswith("log-"))[0]
    offset = len(made.lines[0]) + len(made.lines[1])
    content = bytearray(image[name])
    content[offset + 30] ^= 1
    image[name] = bytes(content)
    directory = made.copy(tmp_path / "broken", image)
    shown = tool("show", directory, "--json", status=1)
    assert f"! {name} line 3 (offset {offset}): its checksum is wrong" in shown
    kept = [*made.lines[:2], *made.lines[3:]]
    assert [line for line in shown.splitlines(True) if not line.startswith("!")] == kept


class Following:
    """A `follow` that runs."""

    def __init__(self, directory: Path, output: Path, *options: str) -> None:
        self.output = output
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                [*LOG, "follow", str(directory), "--json", *options],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_lines(self, wanted: Callable[[list[str]], object]) -> list[str]:
        def lines() -> list[str] | None:
            said = self.output.read_text().splitlines()
            return said if wanted(said) else None

        return wait_for("follow has shown it", lines, 15.0) or []

    def stop(self) -> None:
        """By SIGTERM: SIGINT is ignored by what a background job starts."""
        self.process.terminate()
        assert self.process.wait(10) == -signal.SIGTERM, self.output.read_text()


@pytest.fixture
def following() -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(*arguments: Any) -> Following:
        started.append(Following(*arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_follow_sees_what_a_member_writes(
    tmp_path: Path, following: Callable[..., Following]
) -> None:
    """Over several files, without keeping the member from its directory."""
    data = tmp_path / "data"
    address = f"127.0.0.1:{free_port()}"
    with raftpico.Server(KeyValueStore(), address, data, **SMALL) as server:
        server.create_cluster()
        server.command({"Put": ["before", 1]})
    follow = following(data, tmp_path / "out", "--last", "1")
    follow.wait_lines(lambda lines: any('"before"' in line for line in lines))
    with raftpico.Server(KeyValueStore(), address, data, **SMALL) as server:
        for i in range(80):
            server.command({"Put": [f"k{i}", "x" * 100]}, timeout=30)
    lines = follow.wait_lines(lambda lines: any('"k79"' in line for line in lines))
    assert len(list(data.glob("log-*"))) > 2
    indexes = [json.loads(line)["index"] for line in lines]
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes)))
    inputs = [json.loads(line).get("input") for line in lines]
    assert [i["Put"][0] for i in inputs if i] == ["before", *(f"k{i}" for i in range(80))]
    follow.stop()


def test_follow_says_that_the_log_was_cut(
    made: Made, tmp_path: Path, following: Callable[..., Following]
) -> None:
    """As when a leader replaces a tail that was never committed."""
    directory = made.copy(tmp_path / "cut")
    last = sorted(directory.glob("log-*"))[-1]
    whole = last.read_bytes()
    follow = following(directory, tmp_path / "out", "--last", "2")
    follow.wait_lines(lambda lines: len(lines) == 2)
    lines = whole.splitlines(True)
    entry = json.loads(lines[-1])
    seed = int(json.loads(lines[-2])["crc32c"], 16)
    del entry["crc32c"]
    sealed = seal({**entry, "term": 9}, seed)
    assert _core.read_entry(sealed, seed) is not None
    replaced = b"".join(lines[:-1]) + sealed
    last.with_name("replaced").write_bytes(replaced)
    last.with_name("replaced").rename(last)
    said = follow.wait_lines(lambda lines: len(lines) == 4)
    assert (
        said[2] == f"-- the log was cut: entry {entry['index']} and what followed are replaced"
    )
    assert json.loads(said[3])["term"] == 9
    follow.stop()


def test_the_chain_is_what_the_description_says(made: Made) -> None:
    """csrc/wire/line.h is enough to write a reader from."""
    seed = 0
    for line in made.lines:
        body, seal = line[:-22], line[-22:]
        seed = crc32c(seed, body.encode())
        assert seal == f',"crc32c":"{seed:08x}"}}\n'


# --- check ------------------------------------------------------------------------------------


def test_check_of_a_running_member(cluster: Cluster) -> None:
    """Not disturbed, and never taken for damaged."""
    for turn in range(3):
        cluster.put(f"k{turn}", turn)
        for member in cluster:
            assert member.process is not None
            found = tool_json("check", member.data)
            assert found["verdict"] == "sound" and found["in_use_by"] == member.process.pid
    assert "there is nothing to repair" in tool("check", cluster[0].data, "--repair")
    cluster.put("after", 1)


def test_check_says_where_and_what_to_do(made: Made, tmp_path: Path) -> None:
    directory = made.copy(tmp_path / "d")
    assert tool_json("check", directory)["verdict"] == "sound"
    meta = directory / "meta.jsonl"
    content = meta.read_bytes().replace(b'"voted_for":1', b'"voted_for":2')
    meta.write_bytes(content)
    line = content[: content.index(b'"voted_for":2')].count(b"\n") + 1
    offset = len(b"".join(content.splitlines(True)[: line - 1]))
    said = tool("check", directory, status=1)
    assert f"REFUSED: meta.jsonl line {line} (offset {offset})" in said
    assert "remove the member from its cluster" in said
    assert "nothing here repairs that" in tool("check", directory, "--repair", status=1)
    assert not list(tmp_path.glob("*.before-repair-*"))
    assert "is not a directory" in tool("check", tmp_path / "nothing", status=2)


def test_repair_keeps_the_original(made: Made, tmp_path: Path) -> None:
    directory = made.copy(tmp_path / "d")
    last = sorted(directory.glob("log-*"))[-1]
    torn = last.read_bytes() + b'{"index":63,"term":2,"ti'
    last.write_bytes(torn)
    before = read_image(directory)
    assert "TORN: " + last.name in tool("check", directory, status=1)
    assert read_image(directory) == before, "check alone has changed something"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "stop that member first" in tool("check", directory, "--repair", status=2)
    assert read_image(directory) == before
    assert "in order" in tool("check", directory, "--repair")
    assert read_image(tmp_path / "d.before-repair-1") == before
    assert last.read_bytes() + b'{"index":63,"term":2,"ti' == torn
    assert "nothing to repair" in tool("check", directory, "--repair")
    content = bytearray(last.read_bytes())
    content[40] ^= 1
    last.write_bytes(content)
    said = tool("check", directory, "--repair", status=1)
    assert f"DAMAGE: {last.name} line 1 (offset 0)" in said and "quarantine.jsonl" in said
    assert (tmp_path / "d.before-repair-2" / last.name).read_bytes() == bytes(content)
    with pytest.raises(raftpico.DataCorrupt, match=r"remove quarantine\.jsonl"):
        raftpico.Server(KeyValueStore(), made.address, directory)
    (directory / "quarantine.jsonl").unlink()
    with raftpico.Server(KeyValueStore(), made.address, directory) as server:
        assert server.query({"Get": "k0"}, timeout=30) == ""


# --- diff -------------------------------------------------------------------------------------


def write_apart(directory: Path, address: str, word: str, count: int) -> None:
    with raftpico.Server(KeyValueStore(), address, directory, **SMALL) as server:
        for i in range(count):
            server.command({"Put": [word, i]}, timeout=30)


def test_diff_finds_the_first_difference(made: Made, tmp_path: Path) -> None:
    a, b = made.copy(tmp_path / "a"), made.copy(tmp_path / "b")
    last = len(made.lines)
    same = tool_json("diff", a, b)
    assert same["outcome"] == "agree" and same["compared"] == [1, last]
    write_apart(a, made.address, "ours", 3)
    ahead = tool_json("diff", a, b)
    assert ahead["outcome"] == "agree" and ahead["compared"][1] == last
    assert f"A goes on to entry {last + 4}" in tool("diff", a, b)  # with the new leader's own
    write_apart(b, made.address, "theirs", 3)
    differ = tool_json("diff", a, b, status=1)
    assert differ["outcome"] == "differ"
    assert differ["first_difference"] in (last + 1, last + 2)  # the clock is in the first one
    assert f"they differ first at entry {differ['first_difference']}" in tool(
        "diff", a, b, status=1
    )


def test_diff_over_snapshots(made: Made, tmp_path: Path) -> None:
    """Ranges that overlap only at a snapshot's entry, or not at all."""
    a, b = made.copy(tmp_path / "a"), made.copy(tmp_path / "b")
    for log in b.glob("log-*"):  # as an install leaves it: a snapshot and no log
        log.unlink()
    assert "they agree on the chain at entry" in tool("diff", a, b)
    (name,) = [n for n in made.closed if n.startswith("snapshot-")]
    for file in [a / name, *a.glob("log-*")]:
        file.unlink()
    assert tool_json("diff", a, b, status=2)["outcome"] == "nothing in common"


def test_diff_of_two_clusters_and_of_a_damaged_one(made: Made, tmp_path: Path) -> None:
    with raftpico.Server(KeyValueStore(), "127.0.0.1:0", tmp_path / "other") as server:
        server.create_cluster()
    found = tool_json("diff", made.path, tmp_path / "other", status=1)
    assert found["outcome"] == "different clusters"
    image = dict(made.closed)
    name = sorted(n for n in image if n.startswith("log-"))[-1]
    image[name] = image[name].replace(b'"k59"', b'"k58"')
    broken = made.copy(tmp_path / "broken", image)
    found = tool_json("diff", made.path, broken, status=1)
    assert found["outcome"] == "agree" and found["compared"] == [1, len(made.lines) - 1]
    assert found["broken"][0].startswith(f"B {name} line")


def test_members_agree(cluster: Cluster, tmp_path: Path) -> None:
    for value in range(20):
        cluster.put(f"k{value}", value)
    cluster.wait_converged()
    first = cluster[0].data
    for member in list(cluster)[1:]:
        found = tool_json("diff", first, member.data)
        assert found["outcome"] == "agree" and found["compared"][1] >= 20
        assert found["broken"] == []


# --- the command line -------------------------------------------------------------------------


def test_help_teaches() -> None:
    text = tool("--help")
    for word in (
        "show",
        "follow",
        "check",
        "diff",
        "--repair",
        "torn",
        "damage",
        "exit status",
    ):
        assert word in text
    for command in ("show", "follow", "check", "diff"):
        assert "--json" in tool(command, "--help")


def test_it_needs_nothing_of_a_gone_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert tool_json("check", tmp_path / "empty")["last_index"] == 0
    assert "no readable meta.jsonl" in tool("show", tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty")
    tool("show", tmp_path / "empty", status=2)
