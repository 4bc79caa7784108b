"""Builds the C tests, with sanitizers, into a folder that goes away with the run.

A source is compiled once for each way of compiling it, however many programs it is part of.
"""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

STRICT = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
    f"-I{ROOT / 'csrc'}",
    f"-I{ROOT / 'tests' / 'c'}",
]
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
]
# What the sanitizers of a C test say ends it, and names the line.
ENVIRONMENT = {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "detect_leaks=1"}


_compilers = ThreadPoolExecutor(os.cpu_count())
_objects: dict[tuple[str, ...], Future[Path]] = {}
_objects_lock = threading.Lock()


@functools.cache
def folder() -> Path:
    """The run's folder for what is built."""
    path = Path(tempfile.mkdtemp(prefix="raftpico-c-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def build(
    name: str,
    sources: Sequence[str],
    sanitize: bool = True,
    libs: Sequence[str] = (),
    flags: Sequence[str] = (),
    compiler: str | None = None,
) -> Path:
    """Compile `sources` (relative to the project) with our warnings as errors into a program.

    `libs` are linker words such as "-ljansson"; `flags` come last and may overrule.
    """
    command = [
        *shlex.split(compiler or os.environ.get("CC", "cc")),
        *STRICT,
        "-O1",
        "-g",
        *(SANITIZE if sanitize else []),
        *flags,
    ]
    compiling = [_object(command, ROOT / source) for source in sources]
    objects = [str(made.result()) for made in compiling]
    _call([*command, *objects, "-o", str(folder() / name), *libs])
    return folder() / name


def _object(command: Sequence[str], source: Path) -> Future[Path]:
    """The object of a source, as it is now (mutants differ in their text, not always in their
    name), compiled beside others and by whoever asks first."""
    stat = source.stat()
    key = (*command, str(source), str(stat.st_mtime_ns), str(stat.st_size))
    with _objects_lock:
        if key not in _objects:
            made = folder() / f"{source.stem}-{len(_objects)}.o"
            _objects[key] = _compilers.submit(_compile, command, source, made)
        return _objects[key]


def _compile(command: Sequence[str], source: Path, made: Path) -> Path:
    _call([*command, "-c", str(source), "-o", str(made)])
    return made


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"


def run(program: Path, *arguments: str, timeout: float = 120.0) -> str:
    """Run a C test; what it said is the failure's text, or what is returned."""
    done = subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    said = f"{program.name}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return done.stdout
