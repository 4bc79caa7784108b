"""Connections that break: a proxy between members, and the shim that leads them through it."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import threading
from pathlib import Path

from cbuild import ROOT, folder


@functools.cache
def shim() -> Path:
    """The library to preload; what it does is told by its first comment."""
    library = folder() / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    source = ROOT / "tests" / "c" / "shim.c"
    subprocess.run([*command, "-o", str(library), str(source), "-ldl"], check=True)
    return library


def shimmed(**variables: Path) -> dict[str, str]:
    """The environment of a server with the shim; what is preloaded already stays the first."""
    libraries = [os.environ.get("LD_PRELOAD", ""), str(shim())]
    return {
        "LD_PRELOAD": ":".join(filter(None, libraries)),
        **{f"RAFTPICO_SHIM_{name.upper()}": str(path) for name, path in variables.items()},
    }


class Proxy:
    """Passes bytes on to a port of this machine, counts them, and can be told to break."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.bytes_in = 0  # towards the target
        self.connections = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection that is open now is gone, without a word."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 5.0)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self.connections += 1
                self._open += [near, far]
            for source, sink, counts in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, counts), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
                if counts:
                    with self._lock:
                        self.bytes_in += len(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
