"""The exceptions. Each has the protocol's `code` (or None) and the `data` that came with it.

Every one is a `RaftpicoError`. What a server answers with is a `RequestError`; what keeps a
server from starting, or stops it, is a `ServerError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class RaftpicoError(Exception):
    """The base of all exceptions of this package."""

    code: int | None = None
    """The code of the protocol's error table; None for what has none."""

    default_outcome: ClassVar[str | None] = None

    def __init__(self, message: str = "", *, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message: str = message
        self.data: dict[str, Any] = dict(data or {})

    def __str__(self) -> str:
        parts = [self.message or (type(self).__doc__ or "").split("\n")[0].rstrip(".")]
        reason = self.data.get("reason")
        if isinstance(reason, str) and reason:
            kind = self.data.get("type")
            parts.append(f"{kind}: {reason}" if isinstance(kind, str) else reason)
        return ": ".join(parts)

    @property
    def outcome(self) -> str | None:
        """What became of a command: "not_applied" (safe to send again), "unknown" or "applied".

        None where the question does not arise.
        """
        outcome = self.data.get("outcome", self.default_outcome)
        return outcome if isinstance(outcome, str) else None


# --- what a server answers with ---------------------------------------------------------------


class RequestError(RaftpicoError):
    """The server answered with an error."""


class ParseError(RequestError):
    """The request is not JSON."""

    code = -32700


class InvalidRequest(RequestError):
    """The request is JSON, but no request."""

    code = -32600


class MethodNotFound(RequestError):
    """There is no such method."""

    code = -32601


class InvalidParams(RequestError):
    """A parameter is missing or not what was expected."""

    code = -32602


class InternalError(RequestError):
    """The server failed: a bug of raftpico's."""

    code = -32603


class ClusterAlreadyCreated(RequestError):
    """The server belongs to a cluster already."""

    code = 100


class ServerAlreadyAdded(RequestError):
    """The address is a member already."""

    code = 101


class NotClusterMember(RequestError):
    """The server has no cluster (any more), or the address to remove is no member."""

    code = 102


class InvalidInput(RequestError):
    """The machine refused the input.

    A machine raises it in `apply`, with the reason as its message, before it has changed
    anything.
    """

    code = 103


class InvalidMachineOutput(RequestError):
    """What the machine returned is no JSON. A command was applied."""

    code = 104


class NoMachineOutput(RequestError):
    """The machine gave no output. A command was applied."""

    code = 105


class LeaderChanged(RequestError):
    """The leader changed before it took the request: certainly not applied."""

    code = 106
    default_outcome = "not_applied"


class ResultUnknown(RequestError):
    """The command may or may not be applied."""

    code = 107
    default_outcome = "unknown"


class NoLeader(RequestError):
    """The cluster has no leader now, or no quorum: certainly not applied."""

    code = 108
    default_outcome = "not_applied"


class MachineError(RequestError):
    """The machine's `apply` raised; `data` has the exception's "type" and "reason".

    Of `take_snapshot`: its `snapshot` did, or returned no JSON; `data` has the "reason".
    """

    code = 109


class Overloaded(RequestError):
    """A queue's limit is reached: certainly not applied, try again later."""

    code = 110
    default_outcome = "not_applied"


class ServerUnreachable(RequestError):
    """The server to add does not answer; nothing changed."""

    code = 111


class SessionExpired(RequestError):
    """The session is not open (any more): the command was not applied this time.

    Whether an earlier attempt was, only its sender can tell; see `outcome`.
    """

    code = 113
    default_outcome = "unknown"


class SequencePassed(RequestError):
    """The session is past this number; `data["last_seq"]` is the last one that it had."""

    code = 114
    default_outcome = "unknown"


class AnswerForgotten(RequestError):
    """The command was applied, but its answer was too large or too old to be kept."""

    code = 115
    default_outcome = "applied"


class IndexNotReached(RequestError):
    """The member did not apply `min_index` in time; `data["applied_index"]` is where it is."""

    code = 116
    default_outcome = "not_applied"


# --- a server of this process -----------------------------------------------------------------


class ServerError(RaftpicoError):
    """A server could not start, or had to stop."""


class StorageFailure(ServerError, RequestError):
    """The disk is full or has failed."""

    code = 112


class DataCorrupt(ServerError):
    """A file of the data directory is damaged."""


class DataMismatch(ServerError):
    """The data directory belongs to another address, node or cluster."""


class InUse(ServerError):
    """The address or the data directory is used by another process."""


class ServerClosed(ServerError):
    """The server is closed or stopping."""

    default_outcome = "unknown"


# --- a request that got no answer -------------------------------------------------------------


class RequestTimeout(RaftpicoError, TimeoutError):
    """No answer within the time-out; a command may be applied yet."""

    default_outcome = "unknown"


class ConnectionFailed(RaftpicoError, ConnectionError):
    """No server could be reached, or the connection was lost before the answer came."""

    default_outcome = "unknown"


class ClientClosed(ConnectionFailed):
    """The client was closed."""


def _leaves(base: type[RaftpicoError]) -> list[type[RaftpicoError]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in _leaves(child))]


BY_CODE: dict[int, type[RaftpicoError]] = {
    error.code: error for error in _leaves(RequestError) if error.code is not None
}
"""The exception of each code."""


def from_response(error: Mapping[str, Any]) -> RaftpicoError:
    """The exception for the `error` member of a response.

    Args:
        error: `{"code": int, "message": str, "data": any}`, the last one optional.
    """
    code = error.get("code")
    data = error.get("data")
    if data is not None and not isinstance(data, dict):
        data = {"reason": data if isinstance(data, str) else repr(data)}
    found = BY_CODE.get(code, RequestError) if isinstance(code, int) else RequestError
    exception = found(str(error.get("message", "")), data=data)
    exception.code = code if isinstance(code, int) else None
    return exception
