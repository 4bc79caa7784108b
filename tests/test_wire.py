"""The wire's text: lines, JSON, JSON-RPC. The checks are in C; this builds and runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cbuild import ROOT, build, folder, run

FUZZ_SECONDS = 5
BASE = [f"csrc/base/{name}.c" for name in ("buffer", "memory", "random", "status")]
SCAN = [f"csrc/wire/{name}.c" for name in ("scan", "scan_text", "scanner")]
RPC = [f"csrc/wire/{name}.c" for name in ("rpc", "rpc_params", "rpc_write", "address")]
FRAME = ["csrc/wire/frame.c"]


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("test_frame", FRAME),
        ("test_address", ["csrc/wire/address.c"]),
        ("test_scan", ["tests/c/scanner_plain.c", *SCAN]),
        ("test_wire", [*RPC, *SCAN]),
    ],
)
def test_c(name: str, sources: list[str]) -> None:
    libs = ["-ljansson"] if name == "test_scan" else []
    assert run(build(name, [f"tests/c/{name}.c", *sources, *BASE], libs=libs)) == "ok\n"


def fuzzer() -> Path:
    """The fuzz target; skips where clang cannot build one."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("fuzzing wants clang, which is not here")
    probe = folder() / "probe.c"
    probe.write_text(
        "int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long);\n"
        "int LLVMFuzzerTestOneInput(const unsigned char *a, unsigned long b)"
        "{ (void)a; (void)b; return 0; }\n"
    )
    # NULL + 0 is where an empty span begins: C2y defines it, and no compiler minds.
    flags = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize=pointer-overflow"]
    probing = subprocess.run(
        [clang, *flags, str(probe), "-o", str(folder() / "probe")],
        capture_output=True,
        check=False,
    )
    if probing.returncode != 0:
        pytest.skip("this clang has no libFuzzer")
    sources = ["tests/fuzz/fuzz_wire.c", "tests/c/scanner_plain.c", *RPC, *FRAME, *SCAN, *BASE]
    return build("fuzz_wire", sources, flags=flags, compiler=clang)


def test_fuzz_briefly(tmp_path: Path) -> None:
    """Only the seeds and a few seconds: what goes on for hours is run by hand."""
    run(
        fuzzer(),
        f"-max_total_time={FUZZ_SECONDS}",
        "-max_len=1000",
        f"-artifact_prefix={tmp_path}/",
        str(tmp_path),
        str(ROOT / "tests" / "fuzz" / "corpus_wire"),
        timeout=FUZZ_SECONDS + 60,
    )
