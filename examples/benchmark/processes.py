"""What the kernel says of the servers' processes: processor time, memory, system calls."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
WAIT_SECONDS = 30.0


def free_port() -> int:
    """A port below the kernel's own range, free a moment ago."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(15000, 32000)))
            port: int = probe.getsockname()[1]
            return port


def until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll; TimeoutError when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.005)


def processor_seconds(pid: int) -> float:
    """User and system time, of all threads that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    """What the process holds of memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


# --- system calls -----------------------------------------------------------------------------

SENDS = frozenset({"write", "writev", "send", "sendto", "sendmsg"})
SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range", "msync"})
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(.*)$")
SOCKET = re.compile(r"<TCP(?:v6)?:\[[^\]]*?:(\d+)->[^\]]*?:(\d+)\]>")
RESULT = re.compile(r"= (-?\d+)[^=]*$")


@dataclass
class Counts:
    """What strace saw of the servers."""

    calls: Counter[str] = field(default_factory=Counter)
    syncs: int = 0
    client_sends: int = 0
    peer_sends: int = 0
    peer_bytes_by_member: list[int] = field(default_factory=list)

    @property
    def peer_bytes(self) -> int:
        return sum(self.peer_bytes_by_member)


def find_strace() -> str | None:
    return shutil.which("strace")


def tracing(output: Path) -> list[str]:
    """The words before a command that is to be traced into `output`.

    From its start on, and as a grandchild: attaching later would interrupt a system call, which
    not every server survives.
    """
    words = [find_strace() or "strace", "-D", "-f", "-yy", "-s", "0", "-e", "signal=none"]
    return [*words, "-o", str(output)]


@contextlib.contextmanager
def counting(traces: Sequence[Path], ports: Sequence[int]) -> Iterator[Counts]:
    """Count the system calls of the traced members meanwhile; complete behind the block."""
    counts = Counts(peer_bytes_by_member=[0] * len(traces))
    starts = [trace.stat().st_size for trace in traces]
    yield counts
    parts = []
    for trace, start in zip(traces, starts, strict=True):
        with trace.open("rb") as file:
            file.seek(start)
            parts.append(list(whole_calls(file.read().decode(errors="replace").splitlines())))
    fill(counts, parts, ports)


def whole_calls(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, the rest), with what was interrupted put together again."""
    begun: dict[int, str] = {}
    for line in lines:
        found = CALL.match(line)
        if not found:
            continue
        thread, name, rest = int(found[1]), found[2], found[3]
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest
        elif "resumed>" in rest:
            yield name, begun.pop(thread, "") + rest
        else:
            yield name, rest


def fill(
    counts: Counts, parts: Sequence[Sequence[tuple[str, str]]], ports: Sequence[int]
) -> None:
    """A connection is between servers when one end was dialled by a server."""
    dialled = set()
    for calls in parts:
        for _, rest in calls:
            for local, remote in SOCKET.findall(rest):
                if int(remote) in ports:
                    dialled.add(int(local))
    for member, calls in enumerate(parts):
        for name, rest in calls:
            counts.calls[name] += 1
            counts.syncs += name in SYNCS
            ends = SOCKET.search(rest)
            if name not in SENDS or ends is None:
                continue
            if int(ends[1]) not in dialled and int(ends[2]) not in dialled:
                counts.client_sends += 1
                continue
            result = RESULT.search(rest)
            sent = max(int(result[1]), 0) if result else 0
            counts.peer_sends += 1
            counts.peer_bytes_by_member[member] += sent
