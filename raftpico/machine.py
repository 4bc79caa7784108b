"""The base class of what is replicated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from raftpico._core import ApplyContext
from raftpico.types import Json


class Machine(ABC):
    """A state machine: the same inputs in the same order give the same state on every member.

    So `apply` must be deterministic: it uses no clock but `ctx.time`, no chance but
    `ctx.random`, no files, sockets or environment, and does not depend on the order of a set or
    on `hash()`. All members run the same version of the class and of Python.

        class Counter(raftpico.Machine):
            def __init__(self):
                self.value = 0

            def apply(self, ctx, input):
                if ctx.kind is raftpico.ApplyKind.COMMAND:
                    self.value += input
                return self.value

    A machine may declare the names of its inputs - the keys of an object, or a string itself -
    and then a command that is sent as a query is refused (103) before `apply` sees it:

        commands = {"Put", "Delete"}
        queries = {"Get", "List"}
    """

    commands: ClassVar[Collection[str] | None] = None
    """Names of inputs that change the state: refused in queries. None: not declared."""

    queries: ClassVar[Collection[str] | None] = None
    """Names of inputs that do not. Where declared, other inputs are refused in queries."""

    snapshot_in_process: ClassVar[bool] = False
    """Whether `snapshot` must run in this process, on the machine's thread.

    False (the default, on Linux; elsewhere it is always as if True): it runs in a child process
    that is forked off at exactly the right moment and sees the state of that moment, however
    long it takes and whatever is applied meanwhile. The child has no thread but the machine's,
    no open file or socket but the snapshot's, and nothing that it does to the machine is seen.
    It costs the time of the fork (some 10 ms for 300 MB) and the memory that changes
    while it runs.

    True, for a machine that cannot be forked: its state lives in other threads, or in an
    extension that has some or holds a device; its `snapshot` needs a lock that other threads
    take, or reads files. Nothing is applied then until the snapshot is written.
    """

    @abstractmethod
    def apply(self, ctx: ApplyContext, input: Json) -> Json:
        """Apply one input and return the output.

        Must not change the state unless `ctx.kind` is `ApplyKind.COMMAND`. Called on one
        thread, that of `Server.run`, one input after the other; however long it takes, the
        member goes on taking part in the cluster.

        Args:
            ctx: kind, index, term, time and random; valid during this call.
            input: the JSON value that the client sent.

        Returns:
            A JSON value; `raftpico.NO_OUTPUT` for none.

        Raises:
            raftpico.InvalidInput: the input is refused (103); nothing may have changed.
            Exception: any other is the outcome of the entry (109), the same on every member.
        """

    def snapshot(self) -> Json:
        """The whole state as a JSON value (Ongaro's thesis, 5).

        By default a dict of the public attributes: those of the instance whose names do not
        begin with "_". A large state is better given in pieces, each one a line of the
        snapshot's file: write a generator that yields JSON values. So a restart never has more
        than a piece of it as text in memory.

        It must not change the state. It runs in a process of its own, unless
        `snapshot_in_process`: there it may take its time, within `Server`'s `snapshot_timeout`
        between two pieces.

        Raises:
            Exception: any one is logged, and the snapshot is tried again later; the member
                goes on without it, with a log that grows. So does a value that is no JSON.
        """
        return {name: value for name, value in vars(self).items() if name[:1] != "_"}

    def restore(self, state: Json) -> None:
        """Replace the whole state by that of a snapshot.

        By default sets the public attributes and removes those that the snapshot does not have.

        Args:
            state: what `snapshot` returned, after a way through JSON; an iterator over the
                pieces where `snapshot` is a generator.

        Raises:
            Exception: any one stops the server, for it has no state to go on from.
        """
        for name in [name for name in vars(self) if name[:1] != "_" and name not in state]:
            delattr(self, name)
        for name, value in state.items():
            setattr(self, name, value)
