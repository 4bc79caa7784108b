"""Fuzz targets: what they are built of, and running them.

For longer: python tests/fuzzing.py TARGET SECONDS [DIRECTORY]

keeps what it finds worth keeping in DIRECTORY (default: fuzz-TARGET), beside the seeds in
tests/fuzz/corpus_TARGET. A finding is a file named after it there; run the program that is
named at the start on that file to see it again.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cbuild import ENVIRONMENT, ROOT, build, folder


def sources(*patterns: str) -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for pattern in patterns
        for path in sorted((ROOT / "csrc").glob(pattern))
    ]


NODE = sources("base/*.c", "raft/*.c", "wire/*.c", "node/*.c")
DISK = [
    *sources("storage/file.c", "storage/calls.c"),
    *(f"csrc/server/{name}.c" for name in ("disk_jobs", "backend_memory", "writing", "reader")),
]
HOST = ["tests/c/nodehost.c", *DISK, *NODE]

WIRE = [
    *sources("base/*.c"),
    *(f"csrc/wire/{name}.c" for name in ("rpc", "rpc_params", "rpc_write", "address", "frame")),
    *sources("wire/scan*.c"),
    "tests/c/scanner_plain.c",
]
STORE = [
    *sources("base/*.c", "storage/*.c"),
    *(f"csrc/wire/{name}.c" for name in ("entry", "line", "meta", "snapshot")),
    *("tests/c/memfs.c", "tests/c/memfs_files.c"),
]

# Sources, libraries, and the longest input that is tried.
TARGETS: dict[str, tuple[list[str], list[str], int]] = {
    "wire": (["tests/fuzz/fuzz_wire.c", *WIRE], [], 1000),
    "storage": (["tests/fuzz/fuzz_storage.c", *STORE], [], 5000),
    "request": (["tests/fuzz/fuzz_request.c", *HOST], ["-ljansson"], 2000),
    "peer": (["tests/fuzz/fuzz_peer.c", *HOST], ["-ljansson"], 1000),
    "core": (["tests/fuzz/fuzz_core.c", *sources("base/*.c", "raft/*.c")], [], 1000),
}
# NULL + 0 is where an empty span begins: C2y defines it, and no compiler minds.
FLAGS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize=pointer-overflow"]


@functools.cache
def missing() -> str | None:
    """Why nothing can be fuzzed here; None where it can."""
    clang = shutil.which("clang")
    if clang is None:
        return "fuzzing wants clang, which is not here"
    probe = folder() / "probe_fuzzing.c"
    probe.write_text("int LLVMFuzzerTestOneInput(void *a, long b) { return a == 0 && b; }\n")
    command = [clang, *FLAGS, str(probe), "-o", str(folder() / "probe_fuzzing")]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return "this clang has no libFuzzer"
    return None


def build_target(name: str) -> Path:
    files, libs, _ = TARGETS[name]
    return build(f"fuzz_{name}", files, flags=FLAGS, libs=libs, compiler="clang")


def corpus(name: str) -> Path:
    """The seeds that come along."""
    return ROOT / "tests" / "fuzz" / f"corpus_{name}"


def run_target(
    program: Path, name: str, seconds: int, directory: Path
) -> subprocess.CompletedProcess[str]:
    """Fuzz for so long; new inputs and findings go to the directory."""
    command = [
        str(program),
        f"-max_total_time={seconds}",
        f"-max_len={TARGETS[name][2]}",
        "-print_final_stats=1",
        "-timeout=20",
        f"-artifact_prefix={directory}/",
        str(directory),
        str(corpus(name)),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 120,
        env={**os.environ, **ENVIRONMENT},
    )


def executions(said: str) -> int:
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    return int(found[1]) if found else 0


def main(arguments: list[str]) -> int:
    name, seconds, *rest = arguments
    directory = Path(rest[0] if rest else f"fuzz-{name}")
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "program"
    shutil.copy(build_target(name), program)
    inputs = directory / "inputs"
    inputs.mkdir(exist_ok=True)
    print(f"{program}: {seconds} s", flush=True)
    done = run_target(program, name, int(seconds), inputs)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
    print(f"{name}: {executions(done.stderr)} executions, exit code {done.returncode}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
