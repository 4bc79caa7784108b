"""Clients of a cluster of ledgers (machines.py), and a record of all that they saw.

Each client is a connection to some member, over which it speaks JSON-RPC itself: one request at
a time or many at once. Times are taken before a request is written and after its answer was
read, so that the operation lies within them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster import PATIENCE, Member
from linearizability import NEVER, UNKNOWN, Operation

# A ledger answers within its request time-out of 4 s. On top of that comes what the faults can
# do to it: it is stopped for up to 2 s, and the machine that the test runs on is busy.
ANSWER_SECONDS = 4.0 + 2.0 + 8.0 * PATIENCE

CONNECT_SECONDS = 3.0

# It warns of every write to a connection whose other end has died.
logging.getLogger("asyncio").setLevel(logging.ERROR)
BACK_OFF_SECONDS = 0.03
OPERATIONS_PER_CONNECTION = (20, 150)

# (how many clients, what they do, requests in flight on their connection)
CLIENTS = (
    (2, "register", 1),
    (2, "register", 6),
    (2, "store", 1),
    (1, "store", 16),
    (2, "counter", 1),
    (1, "counter", 4),
    (1, "local", 2),
)
SESSION_CODES = (113, 114)
"""Expired or unknown, and passed: neither can be of a session that is used all the time."""

REPEATED_ANYWAY = 0.1
KEYS = {"register": 3, "store": 6, "counter": 2}


@dataclass(slots=True)
class Record:
    """One request and what it came to: `outcome` is "ok", "refused" (certainly not applied),
    "unknown" or "unanswered"; `life` is the process that was asked. One of a session may have
    been asked for several times, of several: what is noted is the last."""

    name: str
    kind: str
    input: list[Any]
    member: str
    life: int
    call: int
    returned: int | None = None
    outcome: str = "unanswered"
    value: Any = None
    version: int = 0
    code: int | None = None
    session: str | None = None
    attempts: int = 1

    @property
    def key(self) -> str:
        return str(self.input[1])

    def operation(self) -> Operation:
        known = self.outcome == "ok"
        return Operation(
            self.key,
            (self.input[0], *self.input[2:]),
            self.value if known else UNKNOWN,
            self.call,
            self.returned if known and self.returned is not None else NEVER,
            f"{self.name} {self.kind} at {self.member}",
        )


class Link:
    """A connection with any number of requests in flight."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        member: str,
        life: int,
        violations: list[str],
    ) -> None:
        self.member = member
        self.violations = violations
        self.life = life
        self.closed = False
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[tuple[Any, int]]] = {}
        self._ids = itertools.count(1)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                now = time.monotonic_ns()
                response = json.loads(line)
                future = self._waiting.pop(response["id"], None)
                if future is None:
                    self.violations.append(f"an answer that nobody waits for: {response}")
                elif not future.done():
                    future.set_result((response, now))
        except OSError:
            pass
        finally:
            self.closed = True
            for waiting in self._waiting.values():
                waiting.cancel()

    def send(self, params: dict[str, Any]) -> asyncio.Future[tuple[Any, int]]:
        """The response and when it came; cancelled when the connection ends without one."""
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": "Apply", "params": params}
        future: asyncio.Future[tuple[Any, int]] = asyncio.get_running_loop().create_future()
        if self.closed:
            future.cancel()
            return future
        self._waiting[number] = future
        self._writer.write(json.dumps(message).encode() + b"\n")
        return future

    async def close(self) -> None:
        self.closed = True
        self._task.cancel()
        self._writer.close()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass(slots=True)
class Session:
    """One command at a time, numbered from 1."""

    name: str
    sequence: int = 0

    def next_params(self) -> dict[str, Any]:
        self.sequence += 1
        return {"session": self.name, "seq": self.sequence}


class Client:
    """One client: connects, works for a while, connects anew."""

    def __init__(self, workload: Workload, name: str, work: str, depth: int, seed: str) -> None:
        self.workload = workload
        self.name = name
        self.work = work
        self.depth = depth
        self.random = random.Random(seed)
        self.numbers = itertools.count(1)
        self.sessions = [Session(f"{name}.{at}") for at in range(depth)]

    async def run(self) -> None:
        while not self.workload.stopping:
            link = await self._connect()
            if link is None:
                await asyncio.sleep(BACK_OFF_SECONDS)
                continue
            left = self.random.randint(*OPERATIONS_PER_CONNECTION)
            share = left // self.depth + 1
            await asyncio.gather(*(self._work(link, share, own) for own in self.sessions))
            await link.close()

    async def _connect(self) -> Link | None:
        member = self.random.choice(self.workload.members)
        life = member.process.pid if member.process else 0
        host, port = member.address.rsplit(":", 1)
        try:
            opening = asyncio.open_connection(host, int(port), limit=1 << 22)
            reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        except (OSError, TimeoutError):
            return None
        link = Link(reader, writer, member.name, life, self.workload.violations)
        if life == 0 or member.process is None or member.process.pid != life:
            await link.close()  # a restart came between: whose connection is it?
            return None
        return link

    async def _work(self, link: Link, count: int, session: Session) -> None:
        for _ in range(count):
            if link.closed or self.workload.stopping:
                return
            await self.workload.pace()
            if not await self._request(link, session):
                await asyncio.sleep(BACK_OFF_SECONDS)

    def _draw(self) -> tuple[str, str, list[Any]]:
        """The command's name, its kind and input."""
        name = f"{self.name}-{next(self.numbers)}"
        work = self.work if self.work != "local" else self.random.choice(list(KEYS))
        key = f"{work}{self.random.randrange(KEYS[work])}"
        number = self.random.random()
        read = ["total" if work == "counter" else "get", key]
        if self.work == "local":
            return name, "LocalQuery", read
        if number < 0.45:
            return name, "Query", read
        if number < 0.5:
            return name, "Command", read
        if work == "counter":
            return name, "Command", ["add", key, self.random.randint(1, 3)]
        if work == "store" and number < 0.65:
            return name, "Command", ["delete", key]
        if work == "register" and number < 0.75:
            guess = self.workload.latest.get(key)
            return name, "Command", ["cas", key, guess, name]
        return name, "Command", ["put", key, name]

    async def _request(self, link: Link, session: Session) -> bool:
        """One request; False where the client should wait a moment."""
        name, kind, given = self._draw()
        command = kind == "Command"
        params: dict[str, Any] = {"kind": kind, "input": [name, *given] if command else given}
        record = Record(name, kind, given, link.member, link.life, time.monotonic_ns())
        self.workload.records.append(record)
        if self.workload.sessions and command and self.work == "counter":
            record.session = session.name
            await self._request_until_done(link, params | session.next_params(), record)
        else:
            await self._answer(link, params, record)
        return record.outcome == "ok"

    async def _request_until_done(
        self, link: Link, params: dict[str, Any], record: Record
    ) -> None:
        """A command of a session: the same one, of any member, until it has a result. Some are
        asked for once more then, which must be told the same."""
        await self._answer(link, params, record)
        while record.outcome != "ok" and not self.workload.giving_up:
            if record.code in SESSION_CODES:
                self.workload.violations.append(f"a session was lost: {record}")
                return
            await asyncio.sleep(BACK_OFF_SECONDS)
            await self._repeat(params, record)
        if record.outcome == "ok" and self.random.random() < REPEATED_ANYWAY:
            again = replace(record)
            await self._repeat(params, again)
            told = (again.value, again.version)
            if again.outcome == "ok" and told != (record.value, record.version):
                self.workload.violations.append(f"a repeat was told {told}: {record}")
            record.attempts = again.attempts

    async def _repeat(self, params: dict[str, Any], record: Record) -> None:
        link = await self._connect()
        if link is None:
            return
        before = record.outcome
        record.member, record.life = link.member, link.life
        record.attempts += 1
        await self._answer(link, params, record)
        await link.close()
        if record.outcome == "refused" and before != "refused":
            record.outcome = before  # this time; an earlier one may have counted

    async def _answer(self, link: Link, params: dict[str, Any], record: Record) -> None:
        try:
            response, now = await asyncio.wait_for(link.send(params), ANSWER_SECONDS)
        except TimeoutError:
            self.workload.violations.append(f"not answered within its bound: {record}")
            return
        except asyncio.CancelledError:
            if not link.closed:
                raise
            record.outcome = "unknown"
            return
        record.returned = now
        if "result" in response:
            record.outcome, record.code = "ok", None
            record.value, record.version = response["result"]
            self.workload.note(record)
            return
        error = response["error"]
        record.code = error["code"]
        outcome = error.get("data", {}).get("outcome")
        if record.kind != "Command" or outcome == "not_applied":
            record.outcome = "refused"
        elif outcome == "unknown":
            record.outcome = "unknown"
        else:
            self.workload.violations.append(f"an outcome that cannot be: {record} {response}")


class Workload:
    """All clients, in a thread of their own.

    Args:
        members: whom to ask; may be replaced by another list at any time.
        count: requests at which it stops by itself.
        rate: requests a second, at most.
        seed: of what is asked; when, and what it comes to, is the cluster's.
        sessions: counters' commands are sent in sessions, again and again until one of them
            has a result.
    """

    def __init__(
        self, members: list[Member], count: int, rate: float, seed: int, sessions: bool = True
    ) -> None:
        self.members = list(members)
        self.count = count
        self.sessions = sessions
        self.stopping = False
        self.giving_up = False
        self.records: list[Record] = []
        self.violations: list[str] = []
        self.latest: dict[str, Any] = {}
        self.acknowledged = 0
        self._interval = 1.0 / rate
        self._slot = 0.0
        kinds = [(work, depth) for many, work, depth in CLIENTS for _ in range(many)]
        self._clients = [
            Client(self, f"c{at}", work, depth, f"{seed} {at}")
            for at, (work, depth) in enumerate(kinds)
        ]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._run_clients())
        except BaseException as error:
            self._error = error

    async def _run_clients(self) -> None:
        await asyncio.gather(*(client.run() for client in self._clients))

    async def pace(self) -> None:
        now = time.monotonic()
        self._slot = max(self._slot + self._interval, now - 1.0)
        if len(self.records) >= self.count:
            self.stopping = True
        if self._slot > now:
            await asyncio.sleep(self._slot - now)

    def note(self, record: Record) -> None:
        self.acknowledged += 1
        if record.input[0] in ("put", "cas"):
            self.latest[record.key] = record.input[-1]

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Wait for what is in flight; nothing is asked any more."""
        self.stopping = True
        self._thread.join(3 * ANSWER_SECONDS)
        self.giving_up = True
        self._thread.join(ANSWER_SECONDS)
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive(), "a client hangs"

    def wait(self) -> None:
        """Until all that was to be asked has been asked."""
        while not self.done and len(self.records) < self.count:
            self._thread.join(0.05)
        self.stop()

    def save(self, path: Path) -> None:
        with path.open("w") as file:
            for record in self.records:
                file.write(json.dumps(asdict(record)) + "\n")
