"""Making the load: our own generator in C, built here, and jlot where the goals name it."""

from __future__ import annotations

import functools
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

Figures = dict[str, float]

STALL_SECONDS = 30  # nothing answered for so long: the rest is never answered
JLOT_SECONDS = 120.0  # jlot waits for ever; a load of ours takes seconds
HERE = Path(__file__).resolve().parent
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]


class Stall(Exception):
    """Requests that nobody answers, or a server that closed its connections."""


def raise_descriptors() -> int:
    """As many descriptors as may be had, also for the servers that we start; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@functools.cache
def generator() -> str:
    """The path of the generator, compiled when it is asked for first."""
    folder = Path(tempfile.mkdtemp(prefix="raftpico-load-"))
    program = folder / "load"
    sources = [str(path) for path in sorted(HERE.glob("load*.c"))]
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *sources, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: the load generator does not compile here:\n{done.stderr}")
    return str(program)


def remove_generator() -> None:
    if generator.cache_info().currsize:
        shutil.rmtree(Path(generator()).parent, ignore_errors=True)


def drive(
    form: str,
    requests: Iterable[bytes],
    ports: Sequence[int],
    in_flight: int,
    connections: int,
    idle: int = 0,
    path: str = "-",
    directory: Path | None = None,
) -> Figures:
    """Send all `requests` in that form; see load.c. Raises Stall."""
    with tempfile.NamedTemporaryFile(prefix="raftpico-requests-", dir=directory) as file:
        for request in requests:
            file.write(len(request).to_bytes(4, "little"))
            file.write(request)
        file.flush()
        words = [generator(), form, file.name, in_flight, connections, idle, STALL_SECONDS]
        command = [str(word) for word in [*words, path, *ports]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Stall(done.stderr.strip()[-300:])
    found: Figures = json.loads(done.stdout)
    if found["unanswered"] or found["strange"]:
        raise Stall(f"{found['unanswered']:.0f} requests never answered")
    if found["answered"] == found["errors"]:
        raise Stall(f"nothing but errors: {done.stderr.strip()[-300:]}")
    # Near 1, the generator is what limits: faster servers would have waited for it.
    found["generator_share"] = found.pop("generator_s") / max(found["seconds"], 1e-6)
    return found


@functools.cache
def find_jlot() -> str | None:
    """jlot 0.5, named by JLOT_05 or in the PATH."""
    for name in (os.environ.get("JLOT_05"), "jlot"):
        path = shutil.which(name) if name else None
        if path:
            version = subprocess.run([path, "--version"], capture_output=True, text=True)
            if version.stdout.startswith("jlot 0.5"):
                return path
    return None


def percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def drive_jlot(requests: Iterable[bytes], ports: Sequence[int], in_flight: int) -> Figures:
    """The same by `jlot bench`: one connection a port. Raises Stall."""
    lines = b"".join(requests)
    command = [find_jlot() or "jlot", "bench", *(f":{p}" for p in ports), "-c", str(in_flight)]
    try:
        done = subprocess.run(
            command, input=lines, capture_output=True, timeout=JLOT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Stall(f"requests never answered in {JLOT_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise Stall(done.stderr.decode(errors="replace").strip()[-300:])
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    starts = [a["start_unix_timestamp_micros"] for a in answers]
    ends = [a["end_unix_timestamp_micros"] for a in answers]
    took = sorted((e - s) / 1000 for s, e in zip(starts, ends, strict=True))
    seconds = max((max(ends) - min(starts)) / 1e6, 1e-6)
    missing = lines.count(b"\n") - len(answers)
    if missing:
        raise Stall(f"{missing} requests never answered")
    return {
        "rate": len(answers) / seconds,
        "p50_ms": percentile(took, 50),
        "p90_ms": percentile(took, 90),
        "p99_ms": percentile(took, 99),
        "p999_ms": percentile(took, 99.9),
        "max_ms": took[-1],
        "seconds": seconds,
        "answered": len(answers),
        "errors": sum("error" in a for a in answers),
    }
