"""A network for a cluster's processes in which single directions of single links can be cut.

Every member gets a network namespace of its own, tied by a pair of virtual interfaces to the
one in the middle, which routes between them and in which the clients live. A cut is a routing
rule there that drops what goes from one address to another without a word, as a bad network
does. All of it lives in namespaces of the calling process and is gone with it: no root, no
firewall, nothing of the machine's own network is touched.

`python` must run inside: see `inside` and `command_inside`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cluster import Cluster, Member, Port

INSIDE_VARIABLE = "RAFTPICO_TEST_INSIDE"
UNSHARE = ("unshare", "--map-root-user", "--net", "--mount")
LISTEN_PORT = 4000


def inside() -> bool:
    """Whether this process has namespaces of its own to play with."""
    return os.environ.get(INSIDE_VARIABLE) == "1"


def command_inside(command: list[str]) -> list[str]:
    """The command that runs `command` in fresh namespaces."""
    return [*UNSHARE, "env", f"{INSIDE_VARIABLE}=1", *command]


@cache
def possible() -> bool:
    """Whether such namespaces can be made here."""
    if not all(shutil.which(tool) for tool in ("unshare", "ip", "nsenter")):
        return False
    script = (
        "set -e; mount -t tmpfs none /run; ip netns add probe;"
        " ip link add probe0 type veth peer name probe1 netns probe;"
        " ip rule add from 10.77.0.2 to 10.77.1.2 blackhole;"
        " echo 1 > /proc/sys/net/ipv4/ip_forward"
    )
    command = command_inside(["sh", "-c", script])
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


_serials = itertools.count(1)
"""Interfaces outlive their namespace a little, so no name and no address comes twice."""


class Place(Port):
    """An address in a namespace of its own; nobody else is there to take its port."""

    def __init__(self) -> None:
        self.serial = next(_serials)
        self.name = f"m{self.serial}"
        self.subnet = f"10.{64 + self.serial // 250}.{self.serial % 250}"
        self.host = f"{self.subnet}.2"
        self.number = LISTEN_PORT

    @property
    def address(self) -> str:
        return f"{self.host}:{self.number}"

    @property
    def prefix(self) -> list[str]:
        """What makes a command run there; the process is the command's own."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def release(self) -> None:
        pass


class Network:
    """The namespaces, and what is cut."""

    def __init__(self) -> None:
        assert inside(), "not in namespaces of our own"
        if not Path("/run/netns").exists():  # the mounts are this process's own
            run("mount", "-t", "tmpfs", "none", "/run")
            run("ip", "link", "set", "lo", "up")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.cuts: set[tuple[str, str]] = set()
        self.places: dict[str, Place] = {}

    def new_place(self) -> Place:
        place = Place()
        gateway = f"{place.subnet}.1"
        host, peer = f"v{place.serial}", f"e{place.serial}"
        at = place.prefix
        run("ip", "netns", "add", place.name)
        run(
            "ip", "link", "add", host, "type", "veth", "peer", "name", peer, "netns", place.name
        )
        run("ip", "address", "add", f"{gateway}/30", "dev", host)
        run("ip", "link", "set", host, "up")
        run(*at, "ip", "link", "set", "lo", "up")
        run(*at, "ip", "address", "add", f"{place.host}/30", "dev", peer)
        run(*at, "ip", "link", "set", peer, "up")
        run(*at, "ip", "route", "add", "default", "via", gateway)
        self.places[place.address] = place
        return place

    def close(self) -> None:
        self.heal()
        for place in self.places.values():
            run("ip", "netns", "del", place.name)
        self.places.clear()

    def _rule(self, verb: str, cut: tuple[str, str]) -> None:
        source, target = (address.rsplit(":", 1)[0] for address in cut)
        run("ip", "rule", verb, "from", source, "to", target, "blackhole")

    def cut(self, sources: Iterable[Member], targets: Iterable[Member]) -> None:
        """Drop what goes from any of the first to any of the second; not the other way."""
        to = list(targets)
        for one in sources:
            for other in to:
                pair = (one.address, other.address)
                if one is not other and pair not in self.cuts:
                    self._rule("add", pair)
                    self.cuts.add(pair)

    def heal(self) -> None:
        for pair in self.cuts:
            self._rule("del", pair)
        self.cuts.clear()


class LabCluster(Cluster):
    """A cluster whose members each have a place in a network of ours."""

    def __init__(self, directory: Path, n: int, network: Network, command: list[str]) -> None:
        self.network = network
        super().__init__(directory, n, command=command)

    def _new_member(self, port: int | None = None) -> Member:
        place = self.network.new_place()
        name = f"n{len(self.all) + 1}"
        member = Member(
            name,
            place,
            self.directory / f"{name}.log",
            self.directory / name,
            [*place.prefix, *self.command],
            self.environment,
        )
        self.all.append(member)
        return member

    def destroy(self) -> None:
        super().destroy()
        self.network.close()
