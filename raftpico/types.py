"""The small types that the whole package shares."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Final, TypeAlias

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list, or dict with str keys."""


class ApplyKind(enum.Enum):
    """How a request reaches the machine; the value is the protocol's spelling."""

    COMMAND = "Command"
    """Replicated: every member applies it, once, in the same order (Ongaro's thesis, 3.5)."""

    QUERY = "Query"
    """Linearizable: sees every command answered before; costs no log entry (6.4)."""

    LOCAL_QUERY = "LocalQuery"
    """At once, on what this member has applied: may be behind the leader."""


class NoOutput(enum.Enum):
    """The type of `NO_OUTPUT`."""

    NO_OUTPUT = "NO_OUTPUT"


NO_OUTPUT: Final = NoOutput.NO_OUTPUT
"""What `Machine.apply` returns for no output at all: the caller gets `NoMachineOutput` (105).

`None` is an output: JSON's null.
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the machine returned, and the log index that it belongs to."""

    output: Json
    """The machine's output."""

    index: int
    """Of the command's entry; of a query: of the last entry that it saw."""
