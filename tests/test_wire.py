"""The wire's text: lines, JSON, JSON-RPC. The checks are in C; this builds and runs them."""

from __future__ import annotations

import pytest
from cbuild import build, run

BASE = [f"csrc/base/{name}.c" for name in ("buffer", "memory", "random", "status")]
SCAN = [f"csrc/wire/{name}.c" for name in ("scan", "scan_text", "scanner")]
RPC = [
    f"csrc/wire/{name}.c" for name in ("rpc", "rpc_form", "rpc_params", "rpc_write", "address")
]
FRAME = ["csrc/wire/frame.c"]


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("test_frame", FRAME),
        ("test_address", ["csrc/wire/address.c"]),
        ("test_scan", ["tests/c/scanner_plain.c", *SCAN]),
        ("test_wire", [*RPC, *SCAN]),
        ("test_rpc_form", [*RPC, *SCAN]),
    ],
)
def test_c(name: str, sources: list[str]) -> None:
    libs = ["-ljansson"] if name == "test_scan" else []
    assert run(build(name, [f"tests/c/{name}.c", *sources, *BASE], libs=libs)) == "ok\n"
