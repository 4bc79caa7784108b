"""The package: what it exports, its types, its small parts, and the build's own words."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import raftpico
from raftpico import errors
from raftpico._core import dumps, loads
from raftpico.address import normalize_address, split_address
from raftpico.caller import request_line
from raftpico.kvs import PIECE_ENTRIES, KeyValueStore

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python in the source tree which all the same imports the installed package."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- the package ------------------------------------------------------------------------------


def test_exports() -> None:
    for name in raftpico.__all__:
        assert hasattr(raftpico, name), name
    assert raftpico.__version__ == importlib.metadata.version("raftpico")
    assert importlib.resources.files(raftpico).joinpath("py.typed").is_file()
    assert not [
        r for r in importlib.metadata.requires("raftpico") or [] if "extra ==" not in r
    ], "a run-time dependency"


def test_types_are_strict(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    done = run("-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "raftpico")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command: list[str]) -> None:
    pytest.importorskip("ruff")
    done = run("-m", "ruff", *command, "--no-cache", "raftpico", "examples", "setup.py")
    assert done.returncode == 0, done.stdout


def test_subinterpreters() -> None:
    """The engine is imported in an interpreter of its own, beside the first one."""
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    code = (
        f"import raftpico, {module} as interpreters\n"
        "for _ in range(3):\n"
        "    one = interpreters.create()\n"
        '    failed = interpreters.run_string(one, "import raftpico as r\\n'
        'assert r.ApplyContext(index=3).index == 3")\n'
        "    assert failed is None, failed\n"
        "    interpreters.destroy(one)\n"
        "print(raftpico.ApplyContext().kind.value)\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Command\n"


# --- the build --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["build_ext", "bdist_wheel"])
def test_missing_libraries_are_explained(command: str) -> None:
    """No page of compiler errors: what is missing, and what to install where."""
    pytest.importorskip("setuptools")
    done = run("setup.py", command, PKG_CONFIG_LIBDIR="/nonexistent", PKG_CONFIG_PATH="")
    assert done.returncode == 1
    assert done.stdout == ""
    text = [line for line in done.stderr.splitlines() if "arning" not in line]
    assert len(text) < 16, done.stderr
    for name in ("libuv 1.42", "jansson 2.12", "libuv1-dev", "jansson-devel", "brew install"):
        assert name in done.stderr
    for system in ("Debian", "Fedora", "Alpine", "Arch", "macOS"):
        assert system in done.stderr
    assert "Traceback" not in done.stderr
    assert "Python.h" not in done.stderr


def test_missing_pkg_config_is_explained() -> None:
    pytest.importorskip("setuptools")
    done = run("setup.py", "build_ext", PKG_CONFIG="/nonexistent/pkg-config")
    assert done.returncode == 1
    assert "pkgconf" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_compiler_without_link_time_optimisation(tmp_path: Path) -> None:
    """It is probed for; the build goes on without it."""
    pytest.importorskip("setuptools")
    compiler = tmp_path / "plain-cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-flto*) exit 1; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    command = ["setup.py", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    done = run(*command, CC=str(compiler), LDSHARED=f"{compiler} -shared")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("raftpico/_core*.so"))
    assert done.stdout.count("-flto") == 1, "it was tried once"


# --- exceptions -------------------------------------------------------------------------------

CODES = [-32700, -32600, -32601, -32602, -32603, *range(100, 117)]


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_an_exception(code: int) -> None:
    error = errors.from_response({"code": code, "message": "M", "data": {"reason": "why"}})
    assert type(error) is errors.BY_CODE[code]
    assert isinstance(error, raftpico.RequestError)
    assert (error.code, error.message, error.data) == (code, "M", {"reason": "why"})
    assert str(error) == "M: why"
    assert getattr(raftpico, type(error).__name__) is type(error)


def test_the_table_is_complete() -> None:
    assert sorted(errors.BY_CODE) == sorted(CODES)


@pytest.mark.parametrize(
    "response",
    [{}, {"code": 999}, {"code": "x"}, {"code": 103, "data": [1]}, {"code": 108, "data": "s"}],
)
def test_odd_errors_become_exceptions(response: dict[str, Any]) -> None:
    error = errors.from_response(response)
    assert isinstance(error, raftpico.RequestError)
    assert str(error)


def test_outcomes() -> None:
    def outcome(code: int, **data: Any) -> str | None:
        return errors.from_response({"code": code, "message": "", "data": data}).outcome

    assert outcome(103, outcome="applied") == "applied"
    assert outcome(106) == outcome(108) == outcome(110) == "not_applied"
    assert outcome(107) == "unknown"
    assert outcome(100) is None
    assert raftpico.RequestTimeout().outcome == raftpico.ConnectionFailed().outcome == "unknown"
    assert isinstance(raftpico.RequestTimeout(), TimeoutError)
    assert isinstance(raftpico.ConnectionFailed(), ConnectionError)


# --- addresses and lines ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "full"),
    [
        (":4000", "127.0.0.1:4000"),
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:4000", "[::1]:4000"),
    ],
)
def test_addresses(text: str, full: str) -> None:
    assert normalize_address(text) == full
    assert split_address(text)[1] == int(full.rpartition(":")[2])


@pytest.mark.parametrize(
    "text", ["", "4000", "host", "host:", "host:x", "h:65536", "::1:40", "h:-1"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        normalize_address(text)


def test_request_lines() -> None:
    assert request_line("TakeSnapshot", b"", 7) == (
        b'{"jsonrpc":"2.0","id":7,"method":"TakeSnapshot"}'
    )
    assert request_line("AddServer", dumps({"addr": "a:1"}), 1) == (
        b'{"jsonrpc":"2.0","id":1,"method":"AddServer","params":{"addr":"a:1"}}'
    )


@pytest.mark.parametrize(
    "text", ["0.1", "1180591620717411303424", '{"b":1,"a":[null,true,""]}']
)
def test_json_is_carried_exactly(text: str) -> None:
    assert dumps(loads(text)) == text.encode()
    assert dumps(loads(text.encode())) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        dumps(value)


# --- machines ---------------------------------------------------------------------------------


class Plain(raftpico.Machine):
    def __init__(self) -> None:
        self.number = 1
        self.names = ["a"]
        self._hidden = 5

    def apply(self, ctx: raftpico.ApplyContext, input: Any) -> Any:
        return input


def test_a_machine_needs_apply() -> None:
    with pytest.raises(TypeError):
        raftpico.Machine()  # type: ignore[abstract]


def test_default_snapshots() -> None:
    machine = Plain()
    state = machine.snapshot()
    assert state == {"number": 1, "names": ["a"]}
    other = Plain()
    other.number, other.stale, other._hidden = 9, True, 6  # type: ignore[attr-defined]
    other.restore(loads(dumps(state)))
    assert vars(other) == {"number": 1, "names": ["a"], "_hidden": 6}


def test_contexts() -> None:
    context = raftpico.ApplyContext(raftpico.ApplyKind.QUERY, index=3, term=2, time_ms=1500)
    assert (context.kind, context.index, context.term) == (raftpico.ApplyKind.QUERY, 3, 2)
    assert (context.time_ms, context.time) == (1500, 1.5)
    again = raftpico.ApplyContext(index=3, term=2)
    other = raftpico.ApplyContext(index=4, term=2)
    numbers = [c.random.random() for c in (context, again, other)]
    assert numbers[0] == numbers[1] != numbers[2]
    assert context.random is context.random
    assert again.random.random() != numbers[1]
    with pytest.raises(AttributeError):
        context.index = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        raftpico.ApplyContext("Command")  # type: ignore[arg-type]


# --- the key-value store ----------------------------------------------------------------------

COMMAND = raftpico.ApplyContext()


def test_the_store_knows_both_spellings() -> None:
    store = KeyValueStore()
    for given, output in [
        ({"Put": {"key": "a", "value": 1, "more": 0}}, None),
        ({"Put": ["b", [2]]}, None),
        ({"Put": {"key": "a", "value": {"x": 1}}, "more": 0}, 1),
        ({"Get": {"key": "a", "value": 1}}, {"x": 1}),
        ({"Get": "b"}, [2]),
        ({"Get": {"key": "none"}}, None),
        ("List", ["a", "b"]),
        ({"List": {}}, ["a", "b"]),
        ({"Delete": {"key": "a"}}, {"x": 1}),
        ({"Delete": "a"}, None),
        ({"Delete": "b"}, [2]),
        ("List", []),
    ]:
        assert store.apply(COMMAND, given) == output, given


@pytest.mark.parametrize(
    "input",
    [
        *(None, True, 5, 1.5, "", "Put", "ListX", [], ["Put"], ["List"], {}, {"Nope": 1}),
        *(
            {"Put": {"key": 1, "value": 2}},
            {"Put": {"key": "a"}},
            {"Put": ["a"]},
            {"Put": "ab"},
        ),
        *({"Put": [["a"], 1]}, {"Get": [1]}, {"Get": {"key": ["x"]}}, {"Delete": None}),
    ],
)
def test_the_store_refuses_the_rest(input: Any) -> None:
    store = KeyValueStore()
    with pytest.raises(raftpico.InvalidInput, match="expected"):
        store.apply(COMMAND, input)
    assert store.entries == {}


def test_the_store_in_pieces() -> None:
    store = KeyValueStore()
    for number in range(2 * PIECE_ENTRIES + 1):
        store.apply(COMMAND, {"Put": [f"key {number % 7} {number}", number]})
    pieces = list(store.snapshot())
    assert [len(piece) for piece in pieces] == [PIECE_ENTRIES, PIECE_ENTRIES, 1]
    other = KeyValueStore()
    other.apply(COMMAND, {"Put": ["stale", 1]})
    other.restore(iter(pieces))
    assert list(other.entries.items()) == list(store.entries.items())
    assert list(KeyValueStore().snapshot()) == []


def test_the_store_says_what_is_wrong() -> None:
    done = run("-m", "raftpico.kvs", "no-port")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"raftpico kvs: 'no-port' is no address: .*\n", done.stderr)
