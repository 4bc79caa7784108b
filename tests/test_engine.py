"""The engine without Python: transport, disk jobs, and whole members on their threads, in C."""

from __future__ import annotations

from pathlib import Path

import pytest
from cbuild import ROOT, build, run
from fuzzing import HOST

LIBRARIES = ["-luv", "-ljansson", "-lpthread"]


def rooms(*names: str) -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for name in names
        for path in (ROOT / "csrc" / name).glob("*.c")
    )


def build_member(name: str, sanitizer: str) -> Path:
    """tests/c/<name>.c with whole members."""
    return build(
        f"{name}_{sanitizer.split(',')[0]}",
        [
            f"tests/c/{name}.c",
            *rooms("base", "wire", "raft", "storage", "node", "net", "server"),
        ],
        sanitize=False,
        flags=[f"-fsanitize={sanitizer}", "-Wno-format-truncation"],
        libs=LIBRARIES,
    )


def test_net() -> None:
    run(build("test_net", ["tests/c/test_net.c", *rooms("base", "net")], libs=LIBRARIES))


def test_disk_jobs(tmp_path: Path) -> None:
    """What a directory does with a job and what memory does with it are the same."""
    names = ("backend_memory", "backend_store", "disk_jobs", "reader", "writing")
    server = [f"csrc/server/{name}.c" for name in names]
    node = [f"csrc/node/{name}.c" for name in ("job", "batch", "sessions")]
    sources = [
        "tests/c/test_disk_jobs.c",
        *server,
        *node,
        *rooms("base", "wire", "storage", "raft"),
    ]
    run(build("test_disk_jobs", sources, libs=LIBRARIES), str(tmp_path))


def test_writing(tmp_path: Path) -> None:
    """A child that writes a snapshot ends well, badly, silently or not at all."""
    sources = [
        "tests/c/test_writing.c",
        "csrc/server/writing.c",
        "csrc/storage/file.c",
        "csrc/storage/calls.c",
        *(f"csrc/wire/{name}.c" for name in ("line", "snapshot", "snapshot_stream")),
        *rooms("base"),
    ]
    run(build("test_writing", sources), str(tmp_path / "snapshot"))


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_crew(sanitizer: str) -> None:
    """The loop goes along with small work, and comes back from work that lasts."""
    sources = [
        "tests/c/test_crew.c",
        "csrc/server/crew.c",
        "csrc/server/batches.c",
        "csrc/node/batch.c",
        *rooms("base"),
    ]
    flags = [f"-fsanitize={sanitizer}", "-Wno-format-truncation"]
    name = f"test_crew_{sanitizer.split(',')[0]}"
    assert run(build(name, sources, sanitize=False, flags=flags, libs=LIBRARIES)) == "ok\n"


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_shifts(sanitizer: str) -> None:
    """Each thread does what waits before it runs the loop, and gives the loop away in time."""
    sources = [
        "tests/c/test_shifts.c",
        *(f"csrc/server/{name}.c" for name in ("shifts", "crew", "batches", "disk")),
        *(f"csrc/node/{name}.c" for name in ("batch", "job")),
        *rooms("base"),
    ]
    flags = [f"-fsanitize={sanitizer}", "-Wno-format-truncation"]
    name = f"test_shifts_{sanitizer.split(',')[0]}"
    assert run(build(name, sources, sanitize=False, flags=flags, libs=LIBRARIES)) == "ok\n"


def test_node_reads() -> None:
    """L3 on a follower: an answer to an earlier question is for no later query."""
    sources = ["tests/c/test_node_reads.c", *HOST]
    assert run(build("test_node_reads", sources, libs=["-ljansson"])) == "ok\n"


def test_node_gather() -> None:
    """Commands for which nobody waits reach the machine together, and nobody waits for them."""
    sources = ["tests/c/test_node_gather.c", *HOST]
    assert run(build("test_node_gather", sources, libs=["-ljansson"])) == "ok\n"


def test_node_time() -> None:
    """The log's time goes on where a clock was far ahead once, and sessions still expire."""
    sources = ["tests/c/test_node_time.c", *HOST]
    assert run(build("test_node_time", sources, libs=["-ljansson"])) == "ok\n"


def test_node_admin() -> None:
    """An addition whose leader loses its leadership is the next leader's to finish."""
    sources = ["tests/c/test_node_admin.c", *HOST]
    assert run(build("test_node_admin", sources, libs=["-ljansson"])) == "ok\n"


def test_node_disk() -> None:
    """A member that lags gets what the disk gives back; where it cannot, the leader ends."""
    sources = ["tests/c/test_node_disk.c", *HOST]
    flags = ["-DENTRY_CACHE_BYTES_MAX=4096", "-DENTRY_BLOCK_BYTES=2048"]
    assert run(build("test_node_disk", sources, libs=["-ljansson"], flags=flags)) == "ok\n"


def test_node_held() -> None:
    """A turn has an end, however many ask; clients that do not read cost it nothing."""
    sources = ["tests/c/test_node_held.c", *HOST]
    flags = ["-DCLIENTS_IN_BYTES_MAX=131072"]
    assert run(build("test_node_held", sources, libs=["-ljansson"], flags=flags)) == "ok\n"


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_members_in_c(sanitizer: str, tmp_path: Path) -> None:
    """Carried, answered, stopped, freed: no leak, no race."""
    folder = tmp_path / "data"
    folder.mkdir()
    run(build_member("server_smoke", sanitizer), str(folder))


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_loop_between_threads(sanitizer: str, tmp_path: Path) -> None:
    """Machines and disks that are fast, slow and stuck in turn; members stop at any moment."""
    said = run(build_member("server_stress", sanitizer), str(tmp_path), "4", "1")
    assert said == "ok\n"
