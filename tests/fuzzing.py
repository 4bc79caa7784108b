"""Fuzz targets: what they are built of, and running them.

For longer: python tests/fuzzing.py TARGET SECONDS [DIRECTORY]

keeps what it finds worth keeping in DIRECTORY (default: fuzz-TARGET), beside the seeds in
tests/fuzz/corpus_TARGET; half of the time it looks at edges alone, which is faster. A finding
is a file named after it there; run the program that is named at the start on that file to see
it again.

Then: python tests/fuzzing.py --keep TARGET [DIRECTORY]

writes those that reach what no seed does into tests/fuzz/found_TARGET.txt, where the next run
begins.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
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

SCAN = [
    *sources("base/*.c", "wire/scan*.c"),
    *("csrc/wire/frame.c", "tests/c/scanner_plain.c"),
]
WIRE = [
    *sources("base/*.c", "wire/scan*.c"),
    *(
        f"csrc/wire/{name}.c"
        for name in ("rpc", "rpc_form", "rpc_params", "rpc_write", "address")
    ),
]
STORE = [
    *sources("base/*.c", "storage/*.c"),
    *(f"csrc/wire/{name}.c" for name in ("entry", "line", "meta", "snapshot")),
    *("tests/c/memfs.c", "tests/c/memfs_files.c"),
]

# Limits that are small enough for an input to meet them, and for little memory to be cleared
# for each input.
CORE_LIMITS = {
    "MEMBERS_MAX": 7,
    "RAFT_UNCOMMITTED_ENTRIES_MAX": 16,
    "RAFT_IN_FLIGHT_ENTRIES_MAX": 12,
}
NODE_LIMITS = {
    **CORE_LIMITS,
    "NODEHOST_ENDS_MAX": 16,
    "ENTRY_BLOCK_BYTES": 4096,
    "BUCKETS": 4,
    "CLIENT_SESSIONS_MAX": 3,
    "SESSION_ANSWERS_BYTES_MAX": 65536,
    "IN_FLIGHT_PER_CLIENT_MAX": 6,
    "PENDING_COMMANDS_MAX": 16,
    "APPLY_BATCH_ITEMS_MAX": 3,
    "COMPACT_KEEP_ENTRIES": 2,
    "SNAPSHOT_CHUNK_BYTES": 300,
    "SNAPSHOT_CHECK_BYTES": 1000,
    "SNAPSHOT_IO_BYTES": 1000,
    "APPEND_BYTES_MAX": 600,
    "PROPOSE_BYTES_MAX": 300,
    "PEER_OUT_BYTES_MAX": 3000,
}

STORE_LIMITS = {
    "LINE_BYTES_MAX": 512,
    "BLOCK_BYTES": 1024,
    "FILL_STEP_BYTES": 4096,
    "UNSYNCED_BYTES_MAX": 4096,
    "READ_BYTES": 700,
    "LOAD_BYTES": 700,
    "COPY_BYTES": 700,
    "NAMES_MAX": 16,
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What a fuzz target is built of, and the longest input that is tried."""

    sources: list[str]
    input_bytes_max: int
    libs: tuple[str, ...] = ()
    limits: dict[str, int] = dataclasses.field(default_factory=dict)


TARGETS = {
    "scan": Target(["tests/fuzz/fuzz_scan.c", *SCAN], 500),
    "wire": Target(
        ["tests/fuzz/fuzz_wire.c", *WIRE], 500, limits={"FORM_LEARN_EVERY": 1, "RPC_FORMS": 2}
    ),
    "storage": Target(["tests/fuzz/fuzz_storage.c", *STORE], 2500, limits=STORE_LIMITS),
    "request": Target(["tests/fuzz/fuzz_request.c", *HOST], 2000, ("-ljansson",), NODE_LIMITS),
    "peer": Target(["tests/fuzz/fuzz_peer.c", *HOST], 1000, ("-ljansson",), NODE_LIMITS),
    "core": Target(
        ["tests/fuzz/fuzz_core.c", *sources("base/*.c", "raft/*.c")], 1000, limits=CORE_LIMITS
    ),
}
# NULL + 0 is where an empty span begins: C2y defines it, and no compiler minds. Tracing what is
# compared costs half of all time, for the sanitizers compare so much; the words that it would
# find stand in tests/fuzz/TARGET.dict.
FLAGS = [
    "-O2",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize=pointer-overflow",
    "-fno-sanitize-coverage=trace-cmp",
]
# What an input frees need not be kept from use for long: the next one begins anew.
ASAN_OPTIONS = (
    "detect_leaks=1",
    "quarantine_size_mb=1",
    "thread_local_quarantine_size_kb=128",
    "malloc_context_size=4",
    "max_malloc_fill_size=256",
)
SANITIZERS = {**ENVIRONMENT, "ASAN_OPTIONS": ":".join(ASAN_OPTIONS)}
# Edges alone tell inputs apart, not how often each was taken: fewer and shorter inputs are
# kept, and several times as many are tried in the same time.
EDGES_ALONE = ["-use_counters=0"]


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
    target = TARGETS[name]
    limits = [f"-D{limit}={value}" for limit, value in target.limits.items()]
    return build(
        f"fuzz_{name}",
        target.sources,
        flags=[*FLAGS, *limits],
        libs=target.libs,
        compiler="clang",
    )


def corpus(name: str) -> Path:
    """The seeds that come along."""
    return ROOT / "tests" / "fuzz" / f"corpus_{name}"


def found(name: str) -> Path:
    """What earlier runs found worth keeping, each a line of base64."""
    return ROOT / "tests" / "fuzz" / f"found_{name}.txt"


def unpack(name: str, directory: Path) -> None:
    if found(name).exists():
        for number, line in enumerate(found(name).read_text().split()):
            (directory / f"found-{number}").write_bytes(base64.b64decode(line))


def keep(name: str, directory: Path) -> None:
    """Add to what was found, and leave out what no longer reaches anything of its own."""
    inputs = directory / "inputs"
    merged = directory / "merged"
    unpack(name, inputs)
    shutil.rmtree(merged, ignore_errors=True)
    shutil.copytree(corpus(name), merged)
    seeds = set(merged.iterdir())
    command = [str(build_target(name)), "-merge=1", *EDGES_ALONE, str(merged), str(inputs)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **SANITIZERS})
    kept = sorted((path.read_bytes() for path in set(merged.iterdir()) - seeds), key=len)
    lines = [base64.b64encode(text).decode() + "\n" for text in kept if text]
    found(name).write_text("".join(lines))
    print(f"{found(name).name}: {len(lines)} inputs, {sum(map(len, lines))} bytes")


def run_target(
    program: Path, name: str, seconds: int, directory: Path, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Fuzz for so long; new inputs and findings go to the directory."""
    unpack(name, directory)
    words = ROOT / "tests" / "fuzz" / f"{name}.dict"
    command = [
        str(program),
        f"-max_total_time={seconds}",
        f"-max_len={TARGETS[name].input_bytes_max}",
        *([f"-dict={words}"] if words.exists() else []),
        *options,
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
        env={**os.environ, **SANITIZERS},
    )


def executions(said: str) -> int:
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    return int(found[1]) if found else 0


def fuzz(name: str, seconds: int, directory: Path) -> int:
    program = directory / "program"
    inputs = directory / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    shutil.copy(build_target(name), program)
    print(f"{program}: {seconds} s", flush=True)
    for how, options in (("edges alone", EDGES_ALONE), ("counters", [])):
        done = run_target(program, name, seconds // 2, inputs, options)
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            return done.returncode
        print(f"{name}: {executions(done.stderr)} executions, {how}", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    if arguments[0] == "--keep":
        name, *rest = arguments[1:]
        keep(name, Path(rest[0] if rest else f"fuzz-{name}"))
        return 0
    name, seconds, *rest = arguments
    return fuzz(name, int(seconds), Path(rest[0] if rest else f"fuzz-{name}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
