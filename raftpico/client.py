"""A blocking client."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from types import TracebackType

from raftpico import errors
from raftpico.address import normalize_address, split_address
from raftpico.caller import (
    DEFAULT_TIMEOUT,
    Caller,
    answer_of,
    apply_params,
    checked_timeout,
    read_response,
)
from raftpico.types import Answer, ApplyKind, Json

CONNECT_TIMEOUT = 2.0
"""Seconds to wait for one address before the next one is tried."""

FIRST_ATTEMPT = 5.0
"""Seconds for the first attempt of a command in a session, where there is another member to
ask; each later one gets twice as long."""

RECEIVE_BYTES = 1 << 16


class _Connection:
    """One socket and what was received of an unfinished line."""

    def __init__(self, address: str, timeout: float) -> None:
        self.socket = socket.create_connection(split_address(address), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()

    def close(self) -> None:
        self.socket.close()

    def is_stale(self) -> bool:
        """Whether the server closed it, or something is there that nobody asked for."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send(self, line: bytes, deadline: float) -> None:
        self.socket.settimeout(time_left(deadline))
        self.socket.sendall(line + b"\n")

    def receive(self, deadline: float) -> bytes:
        """The next line without its LF. Raises TimeoutError, ConnectionError."""
        searched = 0
        while (end := self.received.find(b"\n", searched)) < 0:
            searched = len(self.received)
            self.socket.settimeout(time_left(deadline))
            piece = self.socket.recv(RECEIVE_BYTES)
            if not piece:
                raise ConnectionError("the server closed the connection")
            self.received += piece
        line = bytes(self.received[:end])
        del self.received[: end + 1]
        return line


class _Session:
    """A session of this client: one command at a time, numbered from 1."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(16)
        self.seq = 0

    def next_params(self, params: bytes) -> bytes:
        """The params of an Apply with the session and its next number."""
        self.seq += 1
        return params[:-1] + b',"session":"%b","seq":%d}' % (self.name.encode(), self.seq)


class Client(Caller):
    """A blocking client of a cluster.

    One connection, opened when it is needed and opened again when it was lost, to the first of
    the addresses that answers. Any member takes any request, so one address is enough as long
    as that member lives. May be used from several threads; their requests go one after the
    other.

        with raftpico.Client(":4000", ":4001", ":4002") as client:
            client.command({"Put": {"key": "foo", "value": 1}})
            print(client.query({"Get": {"key": "foo"}}))

    Commands are sent in a session of the client's own, so that one whose answer was lost (a
    connection that broke, a server that died) is sent again, to another member if there is
    one, until its time is over, and takes effect once all the same. Without sessions such a
    command is not sent again: it raises with the outcome "unknown".

    A local query sees at least what this client's earlier commands and queries saw, whichever
    member it goes to, unless it says otherwise by `min_index`.

    Args:
        addresses: "host:port" each; ":4000" is 127.0.0.1:4000.
        timeout: seconds that a request may take, with everything that is tried again.
        sessions: send commands in sessions.

    Raises:
        ValueError: no address, or one that is none.
    """

    def __init__(
        self, *addresses: str, timeout: float = DEFAULT_TIMEOUT, sessions: bool = True
    ) -> None:
        super().__init__(timeout)
        if not addresses:
            raise ValueError("a client needs an address, like Client('127.0.0.1:4000')")
        self.addresses: tuple[str, ...] = tuple(map(normalize_address, addresses))
        self._at = 0  # of the address that is used, in addresses
        self._connection: _Connection | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._uses_sessions = sessions
        self._idle_sessions: list[_Session] = []  # that no thread uses now
        self._seen_index = 0
        self._seen_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({', '.join(map(repr, self.addresses))})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The address that is used now."""
        return self.addresses[self._at]

    def close(self) -> None:
        """Close the connection. Requests after it raise `ConnectionFailed`."""
        with self._lock:
            self._closed = True
            self._drop()

    # -- commands and queries --

    def _apply(
        self, kind: ApplyKind, input: bytes, bounds: dict[str, int], timeout: float | None
    ) -> Answer:
        if kind is ApplyKind.LOCAL_QUERY:
            bounds = {"min_index": self._seen_index, **bounds}
        if kind is ApplyKind.COMMAND and self._uses_sessions:
            answer = self._in_session(apply_params(kind, input, bounds), timeout)
        else:
            answer = super()._apply(kind, input, bounds, timeout)
        with self._seen_lock:
            self._seen_index = max(self._seen_index, answer.index)
        return answer

    def _in_session(self, params: bytes, timeout: float | None) -> Answer:
        """Send a command in a session that nobody else uses meanwhile."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        try:
            session = self._idle_sessions.pop()
        except IndexError:
            session = _Session()
        while True:
            numbered = session.next_params(params)
            try:
                result = self._request(
                    "Apply", numbered, timeout, is_read=False, repeatable=True
                )
            except errors.SessionExpired as error:
                # It was idle for long, or its first command never arrived.
                if error.outcome != "not_applied" or time.monotonic() >= deadline:
                    raise
                session = _Session()
                timeout = max(deadline - time.monotonic(), 0.001)
                continue
            except BaseException:
                self._idle_sessions.append(session)
                raise
            self._idle_sessions.append(session)
            return answer_of(result)

    def _attempt_time(self, left: float, attempt: int) -> float:
        if len(self.addresses) == 1:
            return left
        return min(left, FIRST_ATTEMPT * float(1 << min(attempt, 10)))

    # -- the connection --

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _next_address(self) -> None:
        self._drop()
        self._at = (self._at + 1) % len(self.addresses)

    def _connect(self, deadline: float) -> _Connection:
        """The open connection, or one to the next address that answers."""
        if self._connection is not None and self._connection.is_stale():
            self._drop()
        if self._connection is not None:
            return self._connection
        failures = []
        for _ in self.addresses:
            try:
                timeout = min(CONNECT_TIMEOUT, time_left(deadline))
                self._connection = _Connection(self.address, timeout)
                return self._connection
            except OSError as error:
                failures.append(f"{self.address}: {error.strerror or error}")
                self._next_address()
        raise errors.ConnectionFailed(
            f"no server answers ({'; '.join(failures)})", data={"outcome": "not_applied"}
        )

    def _exchange(self, line: bytes, request_id: int, timeout: float, is_read: bool) -> Json:
        deadline = time.monotonic() + checked_timeout(timeout)
        if not self._lock.acquire(timeout=timeout):
            raise errors.RequestTimeout(
                f"other threads used the client for {timeout:.1f} s",
                data={"outcome": "not_applied"},
            )
        try:
            return self._exchange_locked(line, request_id, deadline, is_read)
        except BaseException:
            self._drop()  # an answer may be on its way: not for the next request
            raise
        finally:
            self._lock.release()

    def _exchange_locked(
        self, line: bytes, request_id: int, deadline: float, is_read: bool
    ) -> Json:
        for attempt in range(len(self.addresses) + 1):
            if self._closed:
                raise errors.ClientClosed(
                    "the client is closed", data={"outcome": "not_applied"}
                )
            connection = self._connect(deadline)
            used = self.address
            try:
                connection.send(line, deadline)
                response = self._receive(connection, request_id, deadline)
            except TimeoutError as error:
                self._next_address()
                raise errors.RequestTimeout(f"no answer from {used} in time") from error
            except OSError as error:
                lost = f"lost the connection to {used}: {error.strerror or error}"
                self._next_address()
                if not is_read or attempt == len(self.addresses):
                    raise errors.ConnectionFailed(lost) from error
                continue
            if is_refusal(response) and len(self.addresses) > 1:
                self._next_address()
            return response
        raise AssertionError("the loop returns or raises")

    def _receive(self, connection: _Connection, request_id: int, deadline: float) -> Json:
        """The response with that id; one without any id that can be read is ours as well."""
        while True:
            response = read_response(connection.receive(deadline))
            if not isinstance(response, dict) or response.get("id") in (request_id, None):
                return response


def is_refusal(response: Json) -> bool:
    """Whether another member may do better: this one knows no leader, or is leaving (107)."""
    error = response.get("error") if isinstance(response, dict) else None
    return isinstance(error, dict) and error.get("code") in (106, 107, 108)


def time_left(deadline: float) -> float:
    """Seconds until `deadline`. Raises TimeoutError past it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the request's time is over")
    return left
