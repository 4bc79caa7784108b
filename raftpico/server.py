"""A member of a cluster in this process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from raftpico import _core
from raftpico._log import logger
from raftpico.address import normalize_address
from raftpico.caller import DEFAULT_TIMEOUT, Caller, checked_timeout, read_response
from raftpico.machine import Machine
from raftpico.types import Json

Notice = dict[str, Any]
"""What the engine has to say: "level", "event", "text", and more that depends on the event."""

NoticeHook = Callable[[Notice], object]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _Notices:
    """Takes the engine's notices on the apply thread."""

    def __init__(self, hook: NoticeHook | None) -> None:
        self.hook = hook

    def __call__(self, notice: Notice) -> None:
        level = _LEVELS.get(str(notice.get("level")), logging.INFO)
        logger.log(level, "%s", notice.get("text") or notice.get("event"))
        if self.hook is not None:
            try:
                self.hook(notice)
            except Exception:
                logger.exception("on_notice raised")


class Server(Caller):
    """A member: it listens on an address and runs a machine.

    Being constructed it binds the address and reads the data directory. Then either `run()`,
    which makes the calling thread the one that runs the machine until the server is stopped:

        raftpico.Server(Counter(), "127.0.0.1:4000", "data/").run()

    or `start()` and `stop()`, or `with`, which do that on a thread of their own:

        with raftpico.Server(Counter(), "127.0.0.1:0") as server:
            server.create_cluster()
            print(server.command(1))

    The requests of the protocol (`apply`, `add_server` ...) are methods, from any thread but
    that of the machine. Sockets and disk have threads of their own without Python, so a
    machine that takes its time delays its answers but costs no election.

    Args:
        machine: what is replicated.
        address: "host:port" to listen on and to be known by; ":4000" is 127.0.0.1:4000; port 0:
            the system chooses, see `addr`.
        data: the data directory, made where it is not there; None: in memory only, and then
            a member that was restarted has forgotten everything and comes back as a new one.
        insecure: allow an address that is not of this machine's loopback. There is neither
            encryption nor a password.
        sync: False: never wait for the disk. For benchmarks: a power failure loses commands.
        timeout: seconds that a request of this object may take.
        request_timeout: seconds within which every client's request is answered; None: 60.
        segment_bytes: size of a file of the log, bytes; None: the default.
        snapshot_log_bytes: take a snapshot when the log has grown by that since the last one
            and is larger than it, bytes; None: 64 MiB.
        snapshot_timeout: seconds after which a process that writes a snapshot without any
            progress is ended, and the snapshot tried again later; None: 300.
        seed: of the randomised election time-outs; None: from the system.
        on_notice: called with each `Notice` (a change of role or term, a snapshot ...), on the
            machine's thread; they go to the logger "raftpico" in any case.

    Raises:
        raftpico.InUse: the address or the data directory is used by another process.
        raftpico.DataCorrupt, raftpico.DataMismatch, raftpico.StorageFailure: the directory.
        ValueError: the address is none, or not allowed.
    """

    def __init__(
        self,
        machine: Machine,
        address: str,
        data: str | os.PathLike[str] | None = None,
        *,
        insecure: bool = False,
        sync: bool = True,
        timeout: float = DEFAULT_TIMEOUT,
        request_timeout: float | None = None,
        segment_bytes: int | None = None,
        snapshot_log_bytes: int | None = None,
        snapshot_timeout: float | None = None,
        seed: int | None = None,
        on_notice: NoticeHook | None = None,
    ) -> None:
        super().__init__(timeout)
        self.machine = machine
        self._notices = _Notices(on_notice)
        self._core = _core.Server(
            machine,
            normalize_address(address),
            None if data is None else os.fspath(data),
            notice=self._notices,
            insecure=insecure,
            sync=sync,
            segment_bytes=_number("segment_bytes", segment_bytes),
            snapshot_log_bytes=_number("snapshot_log_bytes", snapshot_log_bytes),
            snapshot_timeout_ms=0
            if snapshot_timeout is None
            else _milliseconds(snapshot_timeout),
            seed=_number("seed", seed),
            request_timeout_ms=0 if request_timeout is None else _milliseconds(request_timeout),
        )
        self._addr = self._core.address
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<raftpico.Server {self._addr}>"

    # -- life --

    def run(self) -> None:
        """Run until the server is stopped, then close it.

        On the main thread, SIGINT (Ctrl-C) and SIGTERM stop it gracefully - leadership handed
        over, what is pending answered, all synced - and `run` returns; a second one stops at
        once. That holds where Python's own handlers are installed; yours are left alone.

        Raises:
            raftpico.StorageFailure: the disk failed.
            RuntimeError: it runs already.
            Exception: what the machine's `restore` raised.
        """
        with self._signals():
            self._run()

    def start(self) -> None:
        """Run on a thread of its own, and return at once.

        Raises:
            RuntimeError: it runs already.
        """
        if self._thread is not None or self._core.running:
            raise RuntimeError("the server is running already")
        self._core.start()
        self._thread = threading.Thread(
            target=self._run_in_background, name=f"raftpico {self._addr}", daemon=True
        )
        atexit.register(self._stop_at_exit)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop gracefully, as Ctrl-C does; what `start` started is waited for and closed.

        From the machine's thread, or where another thread is in `run`, it does not wait.

        Args:
            timeout: seconds to wait; then it is stopped at once. None: as long as it takes.

        Raises:
            Exception: what made the server stop earlier; see `run`.
        """
        self._core.stop()
        thread = self._thread
        if thread is None:
            if not self._core.running:
                self._core.close()
            return
        if thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            self._core.stop()
            thread.join()
        self._thread = None
        atexit.unregister(self._stop_at_exit)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        if self._core.running:
            raise RuntimeError("the server is running already")
        try:
            self._core.run()
        finally:
            self._core.close()

    def _run_in_background(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._failure = error
            logger.exception("the server %s stopped", self._addr)

    def _stop_at_exit(self) -> None:
        with contextlib.suppress(Exception):
            self.stop(timeout=2.0)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the server; a machine is never interrupted by the first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal caught
            self._core.stop()
            if caught:
                raise KeyboardInterrupt  # the one exception that is never an outcome
            caught = True

        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        before = {n: h for n, h in defaults.items() if signal.getsignal(n) == h}
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- state --

    def state(self) -> dict[str, Any]:
        """A recent copy of the essentials; waits for nobody (`server_state` says more).

        Its members: "role", "node_id", "term", "leader", "members", "commit_index",
        "applied_index".

        Raises:
            raftpico.ServerClosed: the server is closed.
        """
        return self._core.peek_state()

    @property
    def addr(self) -> str:
        """The address that is listened on, with the port that the system chose."""
        return self._addr

    @property
    def role(self) -> str:
        """One of "Leader", "Follower", "Candidate" and "Learner" (3.3, 4.2.1)."""
        return str(self.state()["role"])

    @property
    def term(self) -> int:
        """The current term (3.3)."""
        return int(self.state()["term"])

    @property
    def leader(self) -> str | None:
        """The leader's address, None where none is known."""
        leader: str | None = self.state().get("leader")
        return leader

    @property
    def members(self) -> list[str]:
        """The members' addresses in the order of joining; empty before there is a cluster."""
        return list(self.state().get("members") or [])

    @property
    def commit_index(self) -> int:
        """The highest log index known to be committed (3.5)."""
        return int(self.state()["commit_index"])

    @property
    def on_notice(self) -> NoticeHook | None:
        """Called with each `Notice` on the machine's thread; None for nobody."""
        return self._notices.hook

    @on_notice.setter
    def on_notice(self, hook: NoticeHook | None) -> None:
        self._notices.hook = hook

    # -- requests --

    def _exchange(self, line: bytes, request_id: int, timeout: float, is_read: bool) -> Json:
        return read_response(self._core.call(line, _milliseconds(timeout)))


def _milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least one, at most what the engine takes."""
    return min(max(1, math.ceil(checked_timeout(seconds) * 1000)), 2**31 - 1)


def _number(name: str, value: int | None) -> int:
    """A size or seed for the engine: 0 for None."""
    if value is None:
        return 0
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} must be from 0 to 2**64 - 1, not {value}")
    return value
