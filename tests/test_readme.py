"""What README.md shows is executed, with other ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PATIENCE, Cluster
from tools import Shell, need_tool

MakeCluster = Callable[..., Cluster]

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(kind: str, name: str) -> str:
    """The fenced block that follows `<!-- kind: name -->`."""
    found = re.findall(rf"<!-- {kind}: {name} -->\n```\w+\n(.*?)```\n", README, re.DOTALL)
    assert len(found) == 1, f"README.md has {len(found)} blocks {kind}: {name}"
    return str(found[0])


def with_ports(text: str, cluster: Cluster) -> str:
    return re.sub(r"\b400([012])\b", lambda m: str(cluster[int(m[1])].port.number), text)


def play(text: str, shell: Shell) -> None:
    """Run each "$ " line; its output must be the lines below it."""
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        assert shell.run(command).strip() == expected.strip(), command


def python(arguments: list[str], directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["demo", "test"])
def test_there_are_two_commands_of_one_line(name: str) -> None:
    """`.ci/run` takes them from here and runs them."""
    command = block("command", name)
    assert command.count("\n") == 1
    assert subprocess.run(["bash", "-n", "-c", command], timeout=20).returncode == 0


def test_the_session(make_cluster: MakeCluster, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "shell", {"jlot": need_tool("JLOT_042", "jlot", "0.4.2")})
    cluster = make_cluster(3, create=False)
    play(with_ports(block("test", "session"), cluster), shell)


def test_the_machine_and_its_client(make_cluster: MakeCluster, tmp_path: Path) -> None:
    program = tmp_path / "counter.py"
    program.write_text(block("test", "machine"))
    assert len(program.read_text().splitlines()) <= 16
    cluster = make_cluster(3, create=False, command=[sys.executable, str(program)])
    (tmp_path / "session.txt").write_text(with_ports(block("test", "client"), cluster))
    python(["-m", "doctest", "session.txt"], tmp_path)


def test_the_embedded_server(tmp_path: Path) -> None:
    source = block("test", "embedded")
    (tmp_path / "embedded.py").write_text(source)
    expected = re.search(r"print\(.*\)  # (.*)", source)
    assert expected
    assert python(["embedded.py"], tmp_path) == expected[1] + "\n"


def test_the_files_and_the_state(make_cluster: MakeCluster, tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    cluster = make_cluster(3, create=False)
    cluster.create(5000, 9000)  # n1 stays the leader, as in the text
    cluster.put("foo", 1)
    cluster.wait_converged()
    shell = Shell(tmp_path / "shell", {})
    python_folder = str(Path(sys.executable).parent)  # of the virtual environment, if in one
    shell.environment["PATH"] = os.pathsep.join([python_folder, shell.environment["PATH"]])
    (shell.directory / "data").mkdir()
    for name, member in zip(("4000", "4001"), cluster, strict=False):
        assert member.data is not None
        (shell.directory / "data" / name).symlink_to(member.data)
    play(block("test", "files"), shell)
    play(block("test", "log"), shell)
    if shutil.which("nc"):
        play(with_ports(block("test", "looking"), cluster), shell)


def test_every_code_of_the_package_is_in_the_table(tmp_path: Path) -> None:
    codes = python(["-c", "import raftpico.errors as e; print(*e.BY_CODE)"], tmp_path).split()
    assert len(codes) > 12
    for code in codes:
        assert code == "-32603" or re.search(rf"^\|.*{code}\b.*\|", README, re.MULTILINE), code


def test_links_to_files_lead_somewhere() -> None:
    for name in re.findall(r"`((?:csrc|examples|tests|raftpico)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
