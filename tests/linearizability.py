"""A checker of linearizability (Herlihy and Wing 1990), for histories of real clusters.

A history is linearizable when each operation can be given one moment between its call and its
return such that all of them, done one after the other in that order, give the outputs that were
seen. An operation whose outcome is unknown may have its moment at any time after its call, or
never. Linearizability is local: a history is linearizable when that of each key is, so keys are
judged one by one.

The search is Wing and Gong's (1993) with Lowe's memory (2017): a depth-first walk over
configurations - which operations have had their moment, and the state that they led to - that
never enters one twice. What keeps it small:

- A configuration is (number of leading operations that are done, which of the few after them
  are done as well, which unknown ones were used, state): small numbers, however long the
  history is.
- Unknown operations with the same input are interchangeable: the one that was called first is
  used first.
- Where a model can say so (every output shows the state before, values are written once), an
  unknown write that was seen must have happened before the first one who saw it returned, and
  one that nobody can have seen is dropped; see `Cell`. So unknown writes do not stay open for
  the rest of the history.

It knows nothing of clusters; times are any numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

NEVER = math.inf
"""The return of an operation whose outcome is unknown."""


class _Unknown:
    def __repr__(self) -> str:
        return "?"


UNKNOWN = _Unknown()
"""The output of an operation whose outcome is unknown."""

Input = tuple[Hashable, ...]
"""A verb and its arguments."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client did to one key.

    Args:
        key: what it was done to.
        input: verb and arguments, hashable.
        output: what came back, or UNKNOWN.
        call: when it was asked for.
        returned: when the answer was there; NEVER where none came.
        name: of whom to tell when something is wrong.
    """

    key: str
    input: Input
    output: Any
    call: float
    returned: float
    name: str = ""

    @property
    def unknown(self) -> bool:
        return self.returned == NEVER


class Model(Protocol):
    """What a key would do, were there no concurrency: states are hashable values."""

    initial: Hashable

    def step(self, state: Any, input: Input) -> tuple[Any, Any]:
        """The output, and the state afterwards."""

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        """The same history with less to search; its verdict is the same."""


class Cell:
    """A register, or a key of a store: get, put, delete and compare-and-set.

    Every verb's output is the value before it, so that each answer shows where it stands:

    | input | output | state afterwards |
    | --- | --- | --- |
    | ("get",) | value | the same |
    | ("put", value) | the value before | value |
    | ("delete",) | the value before | None |
    | ("cas", expected, value) | the value before | value where that was expected |
    """

    initial: Hashable = None

    def step(self, state: Any, input: Input) -> tuple[Any, Any]:
        verb = input[0]
        if verb == "get":
            return state, state
        if verb == "put":
            return state, input[1]
        if verb == "delete":
            return state, None
        assert verb == "cas", input
        return state, input[2] if state == input[1] else state

    @staticmethod
    def written(input: Input) -> Hashable:
        """The value that may stand in the key afterwards; None: none."""
        return input[-1] if input[0] in ("put", "cas") else None

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        """Give unknown writes of a value that is written once a last moment, or drop them.

        Seen: whoever saw the value came after it, so it happened, and before the first of them
        returned. Neither seen nor expected by a compare-and-set: behind it in any order stands
        an operation of which nothing is known either, whose effect is the same without it (a
        put, a delete), or which had none because of it and can be left out as well (a
        compare-and-set). So an order with it makes one without it.
        """
        writers: dict[Hashable, int] = defaultdict(int)
        seen: dict[Hashable, float] = {}
        expected = set()
        for each in operations:
            writers[self.written(each.input)] += 1
            if each.input[0] == "cas":
                expected.add(each.input[1])
            if not each.unknown:
                seen[each.output] = min(seen.get(each.output, NEVER), each.returned)
        kept = []
        for each in operations:
            value = self.written(each.input)
            if each.unknown and value is not None and writers[value] == 1:
                if value in seen:
                    each = replace(each, returned=max(seen[value], each.call))
                elif value not in expected:
                    continue
            if each.unknown and each.input[0] == "get":
                continue
            kept.append(each)
        return kept


class Counter:
    """("add", n) gives the new total, ("total",) the total."""

    initial: Hashable = 0

    def step(self, state: Any, input: Input) -> tuple[Any, Any]:
        total = state + input[1] if input[0] == "add" else state
        return total, total

    def prepare(self, operations: Sequence[Operation]) -> list[Operation]:
        return [each for each in operations if not (each.unknown and each.input[0] == "total")]


class Undecided(Exception):
    """The search grew past its bound: neither verdict stands."""


@dataclass
class Verdict:
    """What the search found.

    Args:
        linearizable: whether an order exists.
        order: such an order (unknown operations that had no moment are left out); where none
            exists, the longest that was found.
        stuck: where none exists: the operations of which one would have had to come next.
        state: where none exists: the state before them.
        explored: configurations that were entered.
    """

    linearizable: bool
    order: list[Operation]
    stuck: list[Operation] = field(default_factory=list)
    state: Any = None
    explored: int = 0

    def __str__(self) -> str:
        if self.linearizable:
            return f"linearizable ({len(self.order)} operations, {self.explored} explored)"
        lines = [f"not linearizable: after {len(self.order)} operations, the last of them"]
        lines += [f"    {each}" for each in self.order[-5:]]
        lines += [f"the state is {self.state!r}, and none of these can follow:"]
        lines += [f"    {each}" for each in self.stuck[:10]]
        return "\n".join(lines)


# (leading known operations that are done, mask of those done behind them, mask of the unknown
# ones that were used, state)
Configuration = tuple[int, int, int, Any]


class _Search:
    """One key's history."""

    def __init__(self, model: Model, operations: Sequence[Operation], bound: int) -> None:
        self.model = model
        self.bound = bound
        ordered = sorted(model.prepare(operations), key=lambda each: each.call)
        self.known = [each for each in ordered if not each.unknown]
        self.unknown = [each for each in ordered if each.unknown]
        self.twin = _previous_twins(self.unknown)
        start: Configuration = (0, 0, 0, model.initial)
        self.came_from: dict[Configuration, tuple[Configuration, Operation] | None] = {
            start: None
        }

    def run(self) -> Verdict:
        stack = list(self.came_from)
        deepest, most = stack[0], -1
        while stack:
            here = stack.pop()
            if here[0] == len(self.known):
                return Verdict(True, self._path(here), explored=len(self.came_from))
            done = here[0] + here[1].bit_count()
            if done > most:
                deepest, most = here, done
            stack += self._next(here)
            if len(self.came_from) > self.bound:
                raise Undecided(f"{self.bound} configurations of {len(self.known)} operations")
        stuck = [each for each, _ in self._candidates(deepest)]
        path = self._path(deepest)
        return Verdict(False, path, stuck, deepest[3], len(self.came_from))

    def _candidates(self, here: Configuration) -> list[tuple[Operation, int]]:
        """Operations that may have their moment now: nothing that is not done returned before
        they were called. With each its number; unknown ones count on behind the known ones."""
        first, mask, used, _ = here
        found: list[tuple[Operation, int]] = []
        deadline = NEVER
        for at in range(first, len(self.known)):
            each = self.known[at]
            if each.call > deadline:
                break
            if not mask >> (at - first) & 1:
                found.append((each, at))
                deadline = min(deadline, each.returned)
        found = [(each, at) for each, at in found if each.call <= deadline]
        for at, each in enumerate(self.unknown):
            if each.call > deadline:
                break
            twin = self.twin[at]
            if not used >> at & 1 and (twin < 0 or used >> twin & 1):
                found.append((each, len(self.known) + at))
        return found

    def _next(self, here: Configuration) -> list[Configuration]:
        """The configurations that follow and are new, the likeliest last."""
        found = []
        for each, at in self._candidates(here):
            output, state = self.model.step(here[3], each.input)
            if each.output is not UNKNOWN and output != each.output:
                continue
            if at < len(self.known):
                there = self._with_known(here, at, state)
            elif state == here[3]:
                continue  # no effect: as well never
            else:
                there = (here[0], here[1], here[2] | 1 << (at - len(self.known)), state)
            if there not in self.came_from:
                self.came_from[there] = (here, each)
                found.append((each.returned, there))
        found.sort(key=lambda pair: -pair[0])
        return [there for _, there in found]

    @staticmethod
    def _with_known(here: Configuration, at: int, state: Any) -> Configuration:
        first, mask, used, _ = here
        mask |= 1 << (at - first)
        while mask & 1:
            mask >>= 1
            first += 1
        return first, mask, used, state

    def _path(self, here: Configuration) -> list[Operation]:
        path = []
        step = self.came_from[here]
        while step is not None:
            here, operation = step
            path.append(operation)
            step = self.came_from[here]
        return path[::-1]


def _previous_twins(operations: Sequence[Operation]) -> list[int]:
    """For each operation the one before it with the same input; -1: none."""
    last: dict[Input, int] = {}
    twins = []
    for at, each in enumerate(operations):
        twins.append(last.get(each.input, -1))
        last[each.input] = at
    return twins


def check_key(model: Model, operations: Iterable[Operation], bound: int = 2_000_000) -> Verdict:
    """Judge the history of one key.

    Args:
        model: what the key does.
        operations: all that was done to it, in any order.
        bound: of the configurations that may be entered.

    Raises:
        Undecided: the bound was reached.
        ValueError: an operation that returned before it was called.
    """
    history = list(operations)
    for each in history:
        if each.returned < each.call or each.unknown != (each.output is UNKNOWN):
            raise ValueError(f"no operation: {each}")
    return _Search(model, history, bound).run()


def check(
    operations: Iterable[Operation], model_of: Callable[[str], Model], bound: int = 2_000_000
) -> dict[str, Verdict]:
    """Judge a history key by key; `model_of` says what a key does."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for each in operations:
        keys[each.key].append(each)
    return {key: check_key(model_of(key), keys[key], bound) for key in sorted(keys)}
