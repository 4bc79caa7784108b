"""What a load looks like: requests of one kind, so many in flight over so many connections."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

COMMAND = "Command"
QUERY = "Query"
LOCAL = "LocalQuery"

KEYS_OF_LETTERS = 0  # three letters, upper and lower case, as in the original's benchmark


@dataclass(frozen=True)
class Shape:
    """One run of a load.

    kind: COMMAND is a Put, QUERY a linearizable Get, LOCAL a Get of what one member has.
    in_flight: requests sent and not yet answered, over all connections.
    connections: 0 for one a member.
    value_bytes: length of a Put's value, a JSON string; 0 for a number of 32 bits.
    keys: how many different keys; KEYS_OF_LETTERS for some 140,000.
    idle: connections besides that send nothing.
    """

    kind: str
    in_flight: int
    count: int
    connections: int = 0
    value_bytes: int = 0
    keys: int = KEYS_OF_LETTERS
    idle: int = 0

    def pairs(self, seed: int) -> Iterator[tuple[str, int | str]]:
        """(key, value) of each request; the same for the same seed."""
        chance = random.Random(seed)
        text = "".join(chance.choices(string.ascii_letters, k=self.value_bytes))
        for i in range(self.count):
            if self.keys == KEYS_OF_LETTERS:
                key = "".join(chance.choices(string.ascii_letters, k=3))
            else:
                key = f"k{i % self.keys}"
            yield key, text or chance.getrandbits(32)
