"""The clients that must work unchanged: jlot 0.4.2 and 0.5, rjg, nc."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from tools import Shell, need_tool

MakeCluster = Callable[..., Cluster]

# The seed's session, line for line (jlot 0.4.2).
TRANSCRIPT = """\
$ jlot req CreateCluster | jlot call :4000
{"jsonrpc":"2.0","id":0,"result":{"members":["127.0.0.1:4000"]}}
$ jlot req AddServer '{"addr":"127.0.0.1:4001"}' | jlot call :4000
{"jsonrpc":"2.0","id":0,"result":{"members":["127.0.0.1:4000","127.0.0.1:4001"]}}
$ jlot req AddServer '{"addr":"127.0.0.1:4002"}' | jlot call :4000
{"jsonrpc":"2.0","id":0,"result":{"members":["127.0.0.1:4000","127.0.0.1:4001",\
"127.0.0.1:4002"]}}
$ jlot req Apply '{"input":{"Put":{"key":"foo","value":1}}, "kind":"Command"}' | jlot call :4000
{"jsonrpc":"2.0","id":0,"result":null}
$ jlot req Apply '{"input":{"Get":{"key":"foo","value":1}}, "kind":"Query"}' | jlot call :4000
{"jsonrpc":"2.0","id":0,"result":1}
"""

# The seed's benchmark, with the rjg of its time (0.1, 0.2) ...
SEED_REQUESTS = (
    """rjg --count 100000 --var key='{"$str": ["$alpha", "$alpha", "$alpha"]}' """
    """--var put='{"Put": {"key":"$key", "value":"$u32"}}' """
    """--var get='{"Get": {"key": "$key"}}' -v delete='{"Delete":{"key":"$key"}}' """
    """'{"jsonrpc":"2.0", "id":"$i", "method":"Apply", "params": {"kind":"Command", """
    """"input":{"$oneof": ["$get", "$put", "$delete"]}}}' > requests.jsonl"""
)
# ... and the same for those of today, which read a template.
TODAYS_REQUESTS = (
    """echo '{"jsonrpc":"2.0", "id":"$seqno", "method":"Apply", "params": """
    """{"kind":"Command", "input":{"$oneof": [{"Get": {"key": "$s[3]"}}, """
    """{"Put": {"key":"$s[3]", "value":"$u32"}}, {"Delete":{"key":"$s[3]"}}]}}}' """
    """| rjg --count 100000 > requests.jsonl"""
)
COUNT = 100_000


def on_the_seeds_ports(make_cluster: MakeCluster) -> Cluster:
    """Three members, on 4000 to 4002 where these are free; not created yet."""
    try:
        return make_cluster(3, create=False, ports=(4000, 4001, 4002))
    except OSError:
        return make_cluster(3, create=False)


def with_ports(text: str, cluster: Cluster) -> str:
    return re.sub(r"\b400([012])\b", lambda m: str(cluster[int(m[1])].port.number), text)


def play(transcript: str, shell: Shell) -> None:
    """Run each "$ " line and hold its output against the lines below it, byte for byte."""
    for step in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        assert shell.run(command) == expected, command


@pytest.fixture
def old_shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "old", {"jlot": need_tool("JLOT_042", "jlot", "0.4.2")})


@pytest.fixture
def new_shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "new", {"jlot": need_tool("JLOT_05", "jlot", "0.5")})


def test_the_seeds_session_byte_for_byte(make_cluster: MakeCluster, old_shell: Shell) -> None:
    cluster = on_the_seeds_ports(make_cluster)
    play(with_ports(TRANSCRIPT, cluster), old_shell)


def test_the_session_in_the_spelling_of_today(
    make_cluster: MakeCluster, new_shell: Shell
) -> None:
    cluster = on_the_seeds_ports(make_cluster)
    today = re.sub(r"(jlot req \w+) '", r"\1 --params '", TRANSCRIPT)
    assert today.count("--params") == 4
    play(with_ports(today, cluster), new_shell)


def test_a_created_cluster_takes_the_session_on_any_member(
    cluster: Cluster, old_shell: Shell
) -> None:
    for at, port in enumerate(m.port.number for m in cluster):
        put = f"""{{"input":{{"Put":["n",{at}]}}, "kind":"Command"}}"""
        before = at - 1 if at else "null"
        play(
            f"$ jlot req Apply '{put}' | jlot call :{port}\n"
            f'{{"jsonrpc":"2.0","id":0,"result":{before}}}\n',
            old_shell,
        )


def create_in_one_echo(shell: Shell, cluster: Cluster) -> None:
    """Three requests in one echo to one jlot call, as in the seed."""
    output = shell.run(
        with_ports(
            """echo $(jlot req CreateCluster) """
            """$(jlot req AddServer '{"addr":"127.0.0.1:4001"}') """
            """$(jlot req AddServer '{"addr":"127.0.0.1:4002"}') | jlot call :4000""",
            cluster,
        )
    )
    assert [len(json.loads(line)["result"]["members"]) for line in output.splitlines()] == [
        1,
        2,
        3,
    ]


def test_the_seeds_benchmark_lines(
    make_cluster: MakeCluster, old_shell: Shell, tmp_path: Path
) -> None:
    """rjg, three requests in one echo, `jlot call ... -a -c 1000 | jlot stats`: no error."""
    rjg = need_tool("RJG", "rjg")
    shell = Shell(
        tmp_path / "bench", {"jlot": need_tool("JLOT_042", "jlot", "0.4.2"), "rjg": rjg}
    )
    cluster = on_the_seeds_ports(make_cluster)
    create_in_one_echo(shell, cluster)
    seeds = "--var" in shell.run("rjg --help")
    shell.run(SEED_REQUESTS if seeds else TODAYS_REQUESTS)
    shell.run(
        with_ports(
            "cat requests.jsonl | jlot call :4000 :4001 :4002 -a -c 1000 > responses.jsonl",
            cluster,
        ),
        timeout=300,
    )
    responses = (shell.directory / "responses.jsonl").read_text().splitlines()
    assert len(responses) == COUNT
    assert not [line for line in responses if '"error"' in line][:3]
    stats = json.loads(shell.run("jlot stats < responses.jsonl", timeout=300))
    assert stats["rpc_calls"] == COUNT
    cluster.wait_converged()
    cluster.assert_logs_identical()


def test_bench_and_stats_of_today(
    make_cluster: MakeCluster, new_shell: Shell, tmp_path: Path
) -> None:
    """`jlot bench :4000 :4001 :4002 -c 1000 | jlot stats`."""
    cluster = on_the_seeds_ports(make_cluster)
    cluster.create()
    with (new_shell.directory / "requests.jsonl").open("w") as file:
        for i in range(20_000):
            value = {"kind": "Command", "input": {"Put": {"key": f"k{i % 500}", "value": i}}}
            message = {"jsonrpc": "2.0", "id": i, "method": "Apply", "params": value}
            file.write(json.dumps(message) + "\n")
    output = new_shell.run(
        with_ports(
            "cat requests.jsonl | jlot bench :4000 :4001 :4002 -c 1000 | jlot stats", cluster
        )
    )
    stats = json.loads(output)
    assert stats["detail"]["count"] == {"success": 20_000, "error": 0}


def test_a_notification_leaves_jlot_waiting_for_nothing(
    cluster: Cluster, new_shell: Shell
) -> None:
    port = cluster[0].port.number
    assert new_shell.run(f"jlot req -n GetServerState | jlot call :{port}") == ""


def test_by_hand_with_nc(cluster: Cluster) -> None:
    nc = shutil.which("nc")
    if nc is None:
        pytest.skip("nc is not installed")
    with subprocess.Popen(
        [nc, "127.0.0.1", str(cluster[1].port.number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(
            b'{"jsonrpc":"2.0","id":1,"method":"Apply",'
            b'"params":{"kind":"Command","input":{"Put":["nc",1]}}}\n'
        )
        process.stdin.flush()
        assert process.stdout.readline() == b'{"jsonrpc":"2.0","id":1,"result":null}\n'
        process.kill()
