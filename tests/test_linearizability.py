"""The checker itself: histories known good and known bad, and all small ones by brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from linearizability import (
    NEVER,
    UNKNOWN,
    Cell,
    Counter,
    Model,
    Operation,
    Undecided,
    check,
    check_key,
)

Row = tuple[float, float, tuple[Any, ...], Any]


def history(*rows: Row) -> list[Operation]:
    """(call, return, input, output) each."""
    return [Operation("k", given, output, call, back) for call, back, given, output in rows]


def put(call: float, back: float, value: Any, before: Any) -> Row:
    return call, back, ("put", value), before


def get(call: float, back: float, value: Any) -> Row:
    return call, back, ("get",), value


def lost(call: float, *given: Any) -> Row:
    return call, NEVER, given, UNKNOWN


GOOD: dict[str, list[Row]] = {
    "nothing": [],
    "in turn": [put(0, 1, "a", None), get(2, 3, "a"), put(4, 5, "b", "a"), get(6, 7, "b")],
    "a read sees a concurrent write": [put(0, 9, "a", None), get(1, 2, "a")],
    "a read does not see it yet": [put(0, 9, "a", None), get(1, 2, None)],
    "first not, then seen": [put(0, 9, "a", None), get(1, 2, None), get(3, 4, "a")],
    "crossing writes": [put(0, 5, "a", "b"), put(1, 6, "b", None), get(7, 8, "a")],
    "a lost write takes effect late": [lost(0, "put", "a"), get(1, 2, None), get(90, 91, "a")],
    "a lost write never does": [lost(0, "put", "a"), get(1, 2, None), get(90, 91, None)],
    "a lost write is overwritten": [
        lost(0, "put", "a"), put(1, 2, "b", "a"), get(3, 4, "b"),
    ],
    "cas": [
        put(0, 1, "a", None), (2, 3, ("cas", "a", "b"), "a"), (4, 5, ("cas", "a", "c"), "b"),
        get(6, 7, "b"),
    ],
    "a lost cas on a lost write": [
        lost(0, "put", "a"), lost(0, "cas", "a", "b"), get(1, 2, "b"),
    ],
    "a lost delete": [put(0, 1, "a", None), lost(2, "delete"), get(3, 4, "a"), get(5, 6, None)],
    "two lost deletes": [
        put(0, 1, "a", None), lost(2, "delete"), lost(2, "delete"), get(5, 6, None),
        put(7, 8, "b", None), get(9, 10, None),
    ],
    "the same instant": [put(0, 1, "a", None), get(1, 1, None)],
}  # fmt: skip

BAD: dict[str, list[Row]] = {
    "a stale read": [put(0, 1, "a", None), put(2, 3, "b", "a"), get(4, 5, "a")],
    "a lost update": [put(0, 1, "a", None), get(2, 3, None)],
    "back in time": [put(0, 9, "a", None), get(1, 2, "a"), get(3, 4, None)],
    "a read from nowhere": [get(0, 1, "a")],
    "a read from the future": [get(0, 1, "a"), put(2, 3, "a", None)],
    "a lost write before its call": [get(0, 1, "a"), lost(2, "put", "a")],
    "a lost write twice": [
        lost(0, "put", "a"), put(1, 2, "b", None), get(3, 4, "a"), put(5, 6, "c", "a"),
        get(7, 8, "a"),
    ],
    "two orders": [
        put(0, 9, "a", None), put(0, 9, "b", "a"), get(10, 11, "a"),
    ],
    "cas that should have failed": [
        put(0, 1, "a", None), (2, 3, ("cas", "x", "b"), "a"), get(4, 5, "b"),
    ],
    "two winners": [
        put(0, 1, "a", None), (2, 5, ("cas", "a", "b"), "a"), (2, 5, ("cas", "a", "c"), "a"),
    ],
    "a delete that did not": [put(0, 1, "a", None), (2, 3, ("delete",), "a"), get(4, 5, "a")],
    "one lost delete, seen twice": [
        put(0, 1, "a", None), lost(2, "delete"), get(3, 4, None), put(5, 6, "b", None),
        get(7, 8, "b"), get(9, 10, None),
    ],
}  # fmt: skip


def add(call: float, back: float, number: int, total: int) -> Row:
    return call, back, ("add", number), total


COUNTS_GOOD: dict[str, list[Row]] = {
    "in turn": [add(0, 1, 2, 2), add(2, 3, 3, 5), (4, 5, ("total",), 5)],
    "crossing": [add(0, 5, 2, 5), add(1, 6, 3, 3)],
    "a lost one counts later": [lost(0, "add", 2), add(1, 2, 1, 1), add(3, 4, 1, 4)],
    "a lost one never counts": [lost(0, "add", 2), add(1, 2, 1, 1), add(3, 4, 1, 2)],
    "two of three lost ones": [
        lost(0, "add", 1), lost(0, "add", 1), lost(0, "add", 1), (1, 2, ("total",), 2),
    ],
}  # fmt: skip
COUNTS_BAD: dict[str, list[Row]] = {
    "counted twice": [add(0, 1, 2, 2), (2, 3, ("total",), 4)],
    "a lost one twice": [lost(0, "add", 2), (1, 2, ("total",), 4)],
    "a lost one before its call": [(0, 1, ("total",), 2), lost(2, "add", 2)],
    "forgotten": [add(0, 1, 2, 2), add(2, 3, 3, 3)],
    "the same total twice": [add(0, 5, 1, 1), add(0, 5, 1, 1)],
}


@pytest.mark.parametrize("name", GOOD)
def test_known_good(name: str) -> None:
    verdict = check_key(Cell(), history(*GOOD[name]))
    assert verdict.linearizable, verdict


@pytest.mark.parametrize("name", BAD)
def test_known_bad(name: str) -> None:
    verdict = check_key(Cell(), history(*BAD[name]))
    assert not verdict.linearizable
    assert "none of these can follow" in str(verdict)


@pytest.mark.parametrize("name", COUNTS_GOOD)
def test_counts_known_good(name: str) -> None:
    assert check_key(Counter(), history(*COUNTS_GOOD[name])).linearizable


@pytest.mark.parametrize("name", COUNTS_BAD)
def test_counts_known_bad(name: str) -> None:
    assert not check_key(Counter(), history(*COUNTS_BAD[name])).linearizable


def test_keys_are_judged_apart() -> None:
    good = history(put(0, 1, "a", None), get(2, 3, "a"))
    bad = [replace(each, key="other") for each in history(get(0, 1, "x"))]
    verdicts = check([*good, *bad], lambda key: Cell())
    assert {key: v.linearizable for key, v in verdicts.items()} == {"k": True, "other": False}


def test_what_is_no_history() -> None:
    with pytest.raises(ValueError, match="no operation"):
        check_key(Cell(), history(get(2, 1, None)))
    with pytest.raises(ValueError, match="no operation"):
        check_key(Cell(), history((2, NEVER, ("get",), None)))


def test_it_says_when_it_cannot_say() -> None:
    rows = [lost(0, "add", 1 << at) for at in range(20)]
    with pytest.raises(Undecided):
        check_key(Counter(), history(*rows, (1, 2, ("total",), -1)), bound=1000)


# --- against brute force ----------------------------------------------------------------------


def orders(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Every order that the times allow, of the known operations and of any unknown ones."""
    known = [each for each in operations if not each.unknown]
    unknown = [each for each in operations if each.unknown]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if all(
                    later.returned >= earlier.call
                    for at, earlier in enumerate(order)
                    for later in order[at + 1 :]
                ):
                    yield order


def brute_force(model: Model, operations: Sequence[Operation]) -> bool:
    for order in orders(operations):
        state: Any = model.initial
        for each in order:
            output, state = model.step(state, each.input)
            if each.output is not UNKNOWN and output != each.output:
                break
        else:
            return True
    return False


def drawn(generator: random.Random, counter: bool) -> list[Operation]:
    """A few operations as a real key would answer them, some of them spoilt afterwards."""
    model: Model = Counter() if counter else Cell()
    state: Any = model.initial
    made: list[Operation] = []
    values = itertools.count(1)
    twice = generator.random() < 0.3  # values that are written more than once
    for at in range(generator.randint(1, 6)):
        value = generator.randint(1, 2) if twice or counter else next(values)
        given: tuple[Any, ...] = generator.choice(
            [("add", value), ("add", value), ("total",)]
            if counter
            else [
                ("get",),
                ("get",),
                ("put", value),
                ("delete",),
                ("cas", generator.choice([state, 1]), value),
            ]
        )
        output, after = model.step(state, given)
        moment = at * 10 + 5
        call = moment - generator.randint(0, 15)
        back: float = moment + generator.randint(0, 15)
        if generator.random() < 0.25:
            if generator.random() < 0.5:
                after = state  # never took effect
            output, back = UNKNOWN, NEVER
        state = after
        made.append(Operation("k", given, output, call, back))
    for _ in range(generator.randint(0, 3)):  # spoil some
        at = generator.randrange(len(made))
        if not made[at].unknown:
            other = generator.choice([each.output for each in made if not each.unknown])
            made[at] = replace(made[at], output=other)
    generator.shuffle(made)
    return made


@pytest.mark.parametrize("counter", [False, True], ids=["cell", "counter"])
def test_the_same_verdict_as_brute_force(counter: bool) -> None:
    generator = random.Random(20240601)
    model: Model = Counter() if counter else Cell()
    said = {True: 0, False: 0}
    for _ in range(1500):
        operations = drawn(generator, counter)
        verdict = check_key(model, operations)
        assert verdict.linearizable == brute_force(model, operations), operations
        said[verdict.linearizable] += 1
    assert min(said.values()) > 200, said  # both were put to the question


# --- large ------------------------------------------------------------------------------------


def simulated(generator: random.Random, count: int, clients: int) -> list[Operation]:
    """`count` operations of that many clients on one key, a twentieth with unknown outcome."""
    free = [0.0] * clients
    state: Any = None
    timed = []
    for number in range(count):
        client = min(range(clients), key=free.__getitem__)
        call = free[client] + generator.expovariate(1)
        back = call + generator.expovariate(1)
        free[client] = back
        timed.append((generator.uniform(call, back), call, back, number))
    made = []
    for moment, call, back, number in sorted(timed):
        verb = generator.choice(["get", "put", "put", "cas", "delete"])
        given: tuple[Any, ...] = (verb,)
        if verb == "put":
            given = ("put", number)
        elif verb == "cas":
            given = ("cas", state if generator.random() < 0.7 else -1, number)
        output, after = Cell().step(state, given)
        if generator.random() < 0.05:
            output, back = UNKNOWN, NEVER
            if generator.random() < 0.5:
                after = state
        state = after
        made.append(Operation("k", given, output, call, back, f"at {moment}"))
    return made


def test_five_thousand_operations_on_one_key() -> None:
    """Counted in configurations, not in seconds: a few for each operation, no explosion."""
    operations = simulated(random.Random(7), 5000, 12)
    assert sum(each.unknown for each in operations) > 200
    verdict = check_key(Cell(), operations, bound=60_000)
    assert verdict.linearizable, verdict


def test_one_stale_read_among_five_thousand() -> None:
    operations = simulated(random.Random(8), 5000, 12)
    reads = [
        at for at, each in enumerate(operations) if each.input == ("get",) and not each.unknown
    ]
    at = reads[len(reads) // 2]
    early = next(each.output for each in operations if isinstance(each.output, int))
    operations[at] = replace(operations[at], output=early)
    assert not check_key(Cell(), operations, bound=500_000).linearizable
