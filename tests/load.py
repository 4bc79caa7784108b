"""Load on a cluster that remembers what the cluster said, to hold it against what it kept."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from typing import Any

from cluster import (
    ANSWER_SECONDS,
    Closed,
    Cluster,
    Connection,
    Member,
    apply_request,
    result_of,
    wait_for,
)


class Load:
    """Puts under keys that are never used twice, from several threads, until it is stopped.

    It knows of each key what the cluster said: acknowledged, certainly not applied, or unclear.
    """

    def __init__(self, cluster: Cluster, workers: int = 6, name: str = "k") -> None:
        self.members = list(cluster.all)
        self.name = name
        self.acknowledged: dict[str, str] = {}
        self.refused: dict[str, int] = {}  # error code; the outcome was "not_applied"
        self.unclear: dict[str, str] = {}
        self.violations: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        return len(self.acknowledged)

    def wait_more(self, count: int, deadline: float = 60.0) -> None:
        """Until that many Puts more than now are acknowledged."""
        target = self.count + count
        wait_for(
            f"{count} more acknowledged Puts",
            lambda: self.count >= target or self.violations,
            deadline,
        )

    def stop(self) -> None:
        """Stop, wait for what is in flight, and check what the requests came to."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)
            assert not thread.is_alive(), "a load thread hangs"
        assert not self.violations, self.violations[:5]

    def _work(self, worker: int) -> None:
        at = worker
        sequence = 0
        while not self._stop.is_set():
            member = self.members[at % len(self.members)]
            at += 1
            try:
                connection = member.connect(2.0)
            except OSError:
                self._stop.wait(0.02)
                continue
            with connection:
                while not self._stop.is_set():
                    sequence += 1
                    if not self._put(connection, member, f"{self.name}-{worker}-{sequence}"):
                        break

    def _put(self, connection: Connection, member: Member, key: str) -> bool:
        """One Put; False when the connection is of no more use."""
        value = f"value of {key}"
        try:
            connection.send(apply_request({"Put": {"key": key, "value": value}}))
            response = connection.receive()
        except Closed:
            self.unclear[key] = "connection closed"
            return False
        except TimeoutError:
            self.unclear[key] = "no answer"
            self.violations.append(f"{member} did not answer the Put of {key}")
            return False
        if "result" in response:
            self.acknowledged[key] = value
            if response["result"] is not None:  # D8: a key of ours was there before
                self.violations.append(f"{key} was applied twice: {response}")
            return True
        error = response["error"]
        outcome = error.get("data", {}).get("outcome")
        if outcome == "not_applied":
            self.refused[key] = error["code"]
            self._stop.wait(0.02)
            return True
        self.unclear[key] = json.dumps(error)
        if outcome != "unknown":
            self.violations.append(f"the outcome of {key} is not said: {response}")
        return True

    def check(self, cluster: Cluster) -> None:
        """Every acknowledged Put is on every running member, and no refused one."""
        for member in cluster.running:
            values = read_all(member, [*self.acknowledged, *self.refused])
            lost = [k for k, v in self.acknowledged.items() if values[k] != v]
            assert not lost, f"{member} lost {len(lost)} acknowledged Puts: {lost[:5]}"
            ghosts = [k for k in self.refused if values[k] is not None]
            assert not ghosts, f"{member} applied refused Puts: {ghosts[:5]}"


def read_all(member: Member, keys: list[str], kind: str = "LocalQuery") -> dict[str, Any]:
    """The values of many keys as that member has them."""
    values: dict[str, Any] = {}
    with member.connect() as connection:
        for start in range(0, len(keys), 200):
            part = keys[start : start + 200]
            connection.send(
                *(apply_request({"Get": {"key": k}}, kind, i) for i, k in enumerate(part))
            )
            for _ in part:
                response = connection.receive()
                values[part[response["id"]]] = result_of(response)
    return values


def pipelined(addresses: list[str], lines: list[bytes], concurrency: int) -> list[bytes]:
    """The responses to all lines: each goes to the connection that has the fewest in flight."""
    responses: list[bytes] = []
    selector = selectors.DefaultSelector()
    partial: dict[socket.socket, bytes] = {}
    in_flight: dict[socket.socket, int] = {}
    for address in addresses:
        host, port = address.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)), 10.0)
        connection.settimeout(120.0)
        selector.register(connection, selectors.EVENT_READ)
        partial[connection] = b""
        in_flight[connection] = 0
    sent = 0
    while len(responses) < len(lines):
        while sent < len(lines) and sent - len(responses) < concurrency:
            connection = min(in_flight, key=in_flight.__getitem__)
            piece = lines[sent : sent + 20]
            connection.sendall(b"".join(piece))
            in_flight[connection] += len(piece)
            sent += len(piece)
        ready = selector.select(120.0)
        assert ready, f"{sent - len(responses)} requests without an answer"
        for key, _ in ready:
            connection = key.fileobj  # type: ignore[assignment]
            data = connection.recv(1 << 20)
            assert data, "a member closed its connection"
            *whole, partial[connection] = (partial[connection] + data).split(b"\n")
            responses += whole
            in_flight[connection] -= len(whole)
    for connection in in_flight:
        connection.close()
    return responses


def command_many(cluster: Cluster, inputs: list[Any], concurrency: int = 1000) -> list[Any]:
    """The outputs of many commands, spread over all running members; an error fails."""
    lines = [
        json.dumps(apply_request(value, "Command", i)).encode() + b"\n"
        for i, value in enumerate(inputs)
    ]
    addresses = [m.address for m in cluster.running]
    answers = [json.loads(line) for line in pipelined(addresses, lines, concurrency)]
    assert len(answers) == len(inputs)
    return [result_of(a) for a in sorted(answers, key=lambda a: a["id"])]
