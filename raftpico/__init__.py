"""A small Raft framework: write a state machine in Python, replicate it with a C engine.

Write a `Machine`, run it with a `Server` on each of three addresses, talk to it with a `Client`
or anything else that speaks JSON-RPC over TCP. `python -m raftpico.demo` shows a cluster at
work, `python -m raftpico.kvs` is a ready key-value store.
"""

from importlib.util import find_spec as _find_spec

if _find_spec("raftpico._core") is None:
    raise ImportError(
        f"the engine of raftpico is not built in {__path__[0]}: where that is the source tree, "
        "`pip install -e .` builds it there; or start Python in another directory"
    )

from raftpico import errors
from raftpico._core import ApplyContext
from raftpico.client import Client
from raftpico.errors import (
    AnswerForgotten,
    ClientClosed,
    ClusterAlreadyCreated,
    ConnectionFailed,
    DataCorrupt,
    DataMismatch,
    IndexNotReached,
    InternalError,
    InUse,
    InvalidInput,
    InvalidMachineOutput,
    InvalidParams,
    InvalidRequest,
    LeaderChanged,
    MachineError,
    MethodNotFound,
    NoLeader,
    NoMachineOutput,
    NotClusterMember,
    Overloaded,
    ParseError,
    RaftpicoError,
    RequestError,
    RequestTimeout,
    ResultUnknown,
    SequencePassed,
    ServerAlreadyAdded,
    ServerClosed,
    ServerError,
    ServerUnreachable,
    SessionExpired,
    StorageFailure,
)
from raftpico.machine import Machine
from raftpico.server import Notice, Server
from raftpico.types import NO_OUTPUT, Answer, ApplyKind, Json

__version__ = "0.1.0"

__all__ = [
    "NO_OUTPUT",
    "Answer",
    "AnswerForgotten",
    "ApplyContext",
    "ApplyKind",
    "Client",
    "ClientClosed",
    "ClusterAlreadyCreated",
    "ConnectionFailed",
    "DataCorrupt",
    "DataMismatch",
    "InUse",
    "IndexNotReached",
    "InternalError",
    "InvalidInput",
    "InvalidMachineOutput",
    "InvalidParams",
    "InvalidRequest",
    "Json",
    "LeaderChanged",
    "Machine",
    "MachineError",
    "MethodNotFound",
    "NoLeader",
    "NoMachineOutput",
    "NotClusterMember",
    "Notice",
    "Overloaded",
    "ParseError",
    "RaftpicoError",
    "RequestError",
    "RequestTimeout",
    "ResultUnknown",
    "SequencePassed",
    "Server",
    "ServerAlreadyAdded",
    "ServerClosed",
    "ServerError",
    "ServerUnreachable",
    "SessionExpired",
    "StorageFailure",
    "__version__",
    "errors",
]
