"""The six methods of the protocol, for whoever can carry a line to a server and back."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from typing import Any, Literal, overload

from raftpico import errors
from raftpico._core import dumps, loads
from raftpico.address import normalize_address
from raftpico.types import Answer, ApplyKind, Json

DEFAULT_TIMEOUT = 30.0
"""Seconds that a request may take, with everything that is tried again."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5

_READS = frozenset({ApplyKind.QUERY, ApplyKind.LOCAL_QUERY})
_KINDS = {kind: dumps(kind.value) for kind in ApplyKind}


class Caller(ABC):
    """Sends requests and understands the answers: what `Client` and `Server` have in common.

    A request that was certainly not applied (no leader, a change of leader, overloaded) is sent
    again, with growing pauses, until its time is over. Nothing else is.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout: float = checked_timeout(timeout)
        self._ids = itertools.count(1)

    # -- the machine --

    @overload
    def apply(
        self,
        input: Json,
        kind: ApplyKind = ...,
        timeout: float | None = ...,
        *,
        index: Literal[False] = ...,
        min_index: int | None = ...,
        max_staleness_ms: int | None = ...,
    ) -> Json: ...

    @overload
    def apply(
        self,
        input: Json,
        kind: ApplyKind = ...,
        timeout: float | None = ...,
        *,
        index: Literal[True],
        min_index: int | None = ...,
        max_staleness_ms: int | None = ...,
    ) -> Answer: ...

    def apply(
        self,
        input: Json,
        kind: ApplyKind = ApplyKind.COMMAND,
        timeout: float | None = None,
        *,
        index: bool = False,
        min_index: int | None = None,
        max_staleness_ms: int | None = None,
    ) -> Json | Answer:
        """Apply an input to the machine and return its output.

        Args:
            input: any JSON value.
            kind: a command, a query or a local query.
            timeout: seconds; None: that of this object.
            index: return an `Answer`, with the log index that the output belongs to: of the
                command's entry, or of the last one that the query saw.
            min_index: queries only: wait until the member has applied this index; 0: do not
                wait. None: as the class says.
            max_staleness_ms: local queries only: see every command that was answered, anywhere,
                this long or longer before; the member asks the leader where it cannot tell.
                None: whatever it has applied.

        Raises:
            raftpico.InvalidInput: the machine refused the input.
            raftpico.MachineError: `apply` raised.
            raftpico.IndexNotReached: `min_index` was not applied in time.
            raftpico.RequestTimeout: no answer in time; a command may be applied yet.
            raftpico.RaftpicoError: any other code; see `raftpico.errors`, and `outcome`.
            ValueError: the input is no JSON value, or is too large.
        """
        kind = ApplyKind(kind)
        bounds = {"min_index": min_index, "max_staleness_ms": max_staleness_ms}
        answer = self._apply(
            kind, dumps(input), {k: v for k, v in bounds.items() if v is not None}, timeout
        )
        return answer if index else answer.output

    @overload
    def command(
        self, input: Json, timeout: float | None = ..., *, index: Literal[False] = ...
    ) -> Json: ...

    @overload
    def command(
        self, input: Json, timeout: float | None = ..., *, index: Literal[True]
    ) -> Answer: ...

    def command(
        self, input: Json, timeout: float | None = None, *, index: bool = False
    ) -> Json | Answer:
        """Replicate an input and return what the machine made of it; as `apply`."""
        answer = self.apply(input, ApplyKind.COMMAND, timeout, index=True)
        return answer if index else answer.output

    def query(
        self, input: Json, timeout: float | None = None, *, min_index: int | None = None
    ) -> Json:
        """Ask the machine, linearizably: every command answered before is seen; as `apply`."""
        return self.apply(input, ApplyKind.QUERY, timeout, min_index=min_index)

    def local_query(
        self,
        input: Json,
        timeout: float | None = None,
        *,
        min_index: int | None = None,
        max_staleness_ms: int | None = None,
    ) -> Json:
        """Ask one member's machine at once; it may be behind the leader; as `apply`."""
        return self.apply(
            input,
            ApplyKind.LOCAL_QUERY,
            timeout,
            min_index=min_index,
            max_staleness_ms=max_staleness_ms,
        )

    # -- the cluster --

    def create_cluster(
        self,
        min_election_timeout_ms: int | None = None,
        max_election_timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Make the server the first member of a new cluster; returns the members' addresses.

        Args:
            min_election_timeout_ms: milliseconds without a leader before the first member
                campaigns (Ongaro's thesis, 3.4); None: 300.
            max_election_timeout_ms: before the last one does; None: 2000.
            timeout: seconds; None: that of this object.

        Raises:
            raftpico.ClusterAlreadyCreated: it belongs to a cluster already.
        """
        params = {
            "min_election_timeout_ms": min_election_timeout_ms,
            "max_election_timeout_ms": max_election_timeout_ms,
        }
        given = {name: value for name, value in params.items() if value is not None}
        return self._members("CreateCluster", given, timeout)

    def add_server(self, address: str, timeout: float | None = None) -> list[str]:
        """Add a running server that has no cluster (4.1); returns all members' addresses.

        It votes as soon as it has caught up.

        Raises:
            raftpico.ServerAlreadyAdded: it is a member already.
            raftpico.ServerUnreachable: it does not answer; nothing changed.
            raftpico.NotClusterMember: the server asked has no cluster.
        """
        return self._members("AddServer", {"addr": normalize_address(address)}, timeout)

    def remove_server(self, address: str, timeout: float | None = None) -> list[str]:
        """Remove a member, dead or alive (4.2); returns the addresses of those that stay.

        Raises:
            raftpico.NotClusterMember: it is none.
        """
        return self._members("RemoveServer", {"addr": normalize_address(address)}, timeout)

    def take_snapshot(self, timeout: float | None = None) -> int:
        """Let the server take a snapshot now (5); returns the log index that it covers."""
        result = self._request("TakeSnapshot", b"", timeout, is_read=True)
        return int(result["snapshot_index"])

    def server_state(self, user: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """The state of the server: role, term, leader, commit index and so on.

        It never waits for the cluster.

        Args:
            user: include the machine's state, `["machines"]["user"]`, which may be large.
            timeout: seconds; None: that of this object.
        """
        params = b'{"user":true}' if user else b""
        result: dict[str, Any] = self._request("GetServerState", params, timeout, is_read=True)
        return result

    # -- carrying --

    def _apply(
        self, kind: ApplyKind, input: bytes, bounds: dict[str, int], timeout: float | None
    ) -> Answer:
        """Send an input (JSON text) with what bounds a query."""
        params = apply_params(kind, input, bounds)
        return answer_of(self._request("Apply", params, timeout, is_read=kind in _READS))

    @abstractmethod
    def _exchange(self, line: bytes, request_id: int, timeout: float, is_read: bool) -> Json:
        """Send a line (without its LF) and return its response, read.

        Args:
            line: the request.
            request_id: its id.
            timeout: seconds, more than 0.
            is_read: nothing changes if the request is done twice.

        Raises:
            raftpico.RaftpicoError: there is no response.
        """

    def _members(self, method: str, params: dict[str, Any], timeout: float | None) -> list[str]:
        text = dumps(params) if params else b""
        members: list[str] = self._request(method, text, timeout, is_read=False)["members"]
        return members

    def _request(
        self,
        method: str,
        params: bytes,
        timeout: float | None,
        *,
        is_read: bool,
        repeatable: bool = False,
    ) -> Json:
        """Send a request, again and again where that is safe, and return its result.

        Args:
            method: its name.
            params: JSON text; empty for none.
            timeout: seconds; None: that of this object.
            is_read: nothing changes if the request is done twice.
            repeatable: it takes effect once, however often it is sent.
        """
        deadline = time.monotonic() + (
            self.timeout if timeout is None else checked_timeout(timeout)
        )
        pause = FIRST_PAUSE
        in_doubt = False  # an earlier attempt may have been applied
        for attempt in itertools.count():
            request_id = next(self._ids)
            line = request_line(method, params, request_id)
            left = max(deadline - time.monotonic(), 0.001)
            if repeatable:
                left = self._attempt_time(left, attempt)
            try:
                return result_of(self._exchange(line, request_id, left, is_read))
            except errors.RaftpicoError as error:
                in_doubt = in_doubt or is_doubtful(error)
                again = is_safe_again(error) or (repeatable and is_passing(error, in_doubt))
                wait = max(pause, retry_after(error))
                if not again or time.monotonic() + wait >= deadline:
                    state_outcome(error, in_doubt)
                    raise
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the loop returns or raises")

    def _attempt_time(self, left: float, attempt: int) -> float:
        """Seconds for one attempt of a request that may be repeated, `left` at most."""
        return left


def checked_timeout(timeout: float) -> float:
    """The time-out itself, seconds. Raises ValueError where it is not above 0."""
    if not timeout > 0:
        raise ValueError(f"a timeout must be more than 0 seconds, not {timeout!r}")
    return float(timeout)


def request_line(method: str, params: bytes, request_id: int) -> bytes:
    """A JSON-RPC request without its LF; `params` is JSON text, empty for none."""
    head = b'{"jsonrpc":"2.0","id":%d,"method":"%b"' % (request_id, method.encode())
    return head + (b',"params":%b}' % params if params else b"}")


def result_of(response: Json) -> Json:
    """The result of a response. Raises the exception of an error."""
    if isinstance(response, dict):
        if "result" in response:
            return response["result"]
        error = response.get("error")
        if isinstance(error, dict):
            raise errors.from_response(error)
    raise errors.RaftpicoError(f"this is no JSON-RPC response: {str(response)[:200]}")


def is_safe_again(error: errors.RaftpicoError) -> bool:
    """Whether the request was certainly not applied and may succeed later."""
    passing = (errors.LeaderChanged, errors.NoLeader, errors.Overloaded)
    return isinstance(error, passing) and error.outcome == "not_applied"


def is_doubtful(error: errors.RaftpicoError) -> bool:
    """Whether this attempt may have been applied, or may be yet."""
    said_before = isinstance(error, (errors.SessionExpired, errors.SequencePassed))
    return error.outcome == "unknown" and not said_before


def is_passing(error: errors.RaftpicoError, in_doubt: bool) -> bool:
    """Whether a command that takes effect once may be sent again after this error.

    Where no server could be reached at all, only one that may have been applied is.
    """
    if isinstance(error, errors.ConnectionFailed):
        return in_doubt and not isinstance(error, errors.ClientClosed)
    return isinstance(error, (errors.ResultUnknown, errors.NoLeader, errors.RequestTimeout))


def state_outcome(error: errors.RaftpicoError, in_doubt: bool) -> None:
    """Let an error of the last attempt tell what all of them came to."""
    if isinstance(error, errors.SessionExpired):
        error.data["outcome"] = "unknown" if in_doubt else "not_applied"
    elif in_doubt and error.outcome == "not_applied":
        error.data["outcome"] = "unknown"


def apply_params(kind: ApplyKind, input: bytes, bounds: dict[str, int]) -> bytes:
    """The params of an Apply that asks for the index, too; `input` is JSON text."""
    more = b"".join(b',"%b":%d' % (name.encode(), value) for name, value in bounds.items())
    return b'{"kind":%b,"input":%b,"index":true%b}' % (_KINDS[kind], input, more)


def answer_of(result: Json) -> Answer:
    """The output and its index, of an Apply's result. Raises RaftpicoError where it is none."""
    if isinstance(result, dict) and set(result) == {"index", "output"}:
        return Answer(result["output"], result["index"])
    raise errors.RaftpicoError(f"this is no answer with an index: {str(result)[:200]}")


def retry_after(error: errors.RaftpicoError) -> float:
    """Seconds that the server asked to wait, 0 where it did not."""
    milliseconds = error.data.get("retry_after_ms", 0)
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) else 0.0


def read_response(line: bytes) -> Json:
    """The JSON value of a response line.

    Raises:
        raftpico.RaftpicoError: it is none.
    """
    try:
        return loads(line)
    except ValueError as error:
        raise errors.RaftpicoError(f"the server did not answer in JSON: {error}") from error
