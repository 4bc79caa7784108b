"""What happens to a cluster while clients work on it: each fault is done and undone here.

Which faults and on whom comes from a seed; when they hit depends on the machine. Every fault
leaves the cluster whole, so that any can follow.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable

from cluster import Closed, Cluster, Member, code_of, wait_for
from netlab import Network
from workload import Workload

HOLD_SECONDS = (0.25, 1.2)
"""How long a fault lasts: from less than an election time-out to several."""

MEMBERS_LEAST = 3
MEMBERS_MOST = 5


class Faults:
    """Faults for one history.

    Args:
        cluster: whose members are hurt.
        workload: must go on after each fault; its list of members is kept up to date.
        network: None: there are no partitions.
        seed: of what is chosen.
    """

    def __init__(
        self, cluster: Cluster, workload: Workload, network: Network | None, seed: int
    ) -> None:
        self.cluster = cluster
        self.workload = workload
        self.network = network
        self.random = random.Random(f"faults {seed}")
        self.done: Counter[str] = Counter()
        self.violations: list[str] = []
        self._gone: set[Member] = set()
        self._stopped: set[Member] = set()
        self._led: dict[Member, int] = {}  # killed while leading this term
        self._stop = threading.Event()

    # -- whom --

    @property
    def members(self) -> list[Member]:
        return [member for member in self.cluster.all if member not in self._gone]

    def _leader(self) -> Member:
        return self.cluster.wait_leader(self.members)

    def _other(self) -> Member:
        return self.random.choice([m for m in self.members if m is not self._leader()])

    def _some(self, count: int) -> list[Member]:
        return self.random.sample(self.members, count)

    def _minority(self) -> list[Member]:
        return self._some((len(self.members) - 1) // 2)

    # -- doing and undoing --

    def _hold(self) -> None:
        """The fault's own duration; nothing is waited for."""
        time.sleep(self.random.uniform(*HOLD_SECONDS))

    def kill(self, *members: Member) -> None:
        for member in members:
            try:
                state = member.state(timeout=0.5)
                if state["role"] == "Leader":
                    self._led[member] = state["current_term"]
            except (OSError, Closed):
                pass
        for member in members:
            member.kill()

    def stop(self, *members: Member) -> None:
        for member in members:
            member.pause()
            self._stopped.add(member)

    def cut(self, sources: list[Member], targets: list[Member]) -> None:
        if self.network is not None:
            self.network.cut(sources, targets)

    def isolate(self, *members: Member) -> None:
        rest = [member for member in self.members if member not in members]
        self.cut(list(members), rest)
        self.cut(rest, list(members))

    def calm(self) -> None:
        """Undo all of it."""
        for member in self._stopped:
            member.resume()
        self._stopped.clear()
        if self.network is not None:
            self.network.heal()
        down = [member for member in self.members if not member.running]
        for member in down:
            member.start()
        for member in down:
            member.wait_ready()
            self._check_vote(member)

    def _check_vote(self, member: Member) -> None:
        """V2, V4: who led a term had voted for itself in it, durably."""
        term = self._led.pop(member, None)
        if term is None:
            return
        state = member.state()
        vote = (state["current_term"], state["voted_for"])
        if vote[0] < term or (vote[0] == term and vote[1] != state["node_id"]):
            self.violations.append(f"{member} led term {term} and came back with {vote}")

    # -- the faults --

    def kill_the_leader(self) -> None:
        self.kill(self._leader())
        self._hold()

    def kill_a_follower(self) -> None:
        self.kill(self._other())
        self._hold()

    def kill_two(self) -> None:
        self.kill(*self._some(2))
        self._hold()

    def kill_all(self) -> None:
        self.kill(*self.members)

    def stop_the_leader(self) -> None:
        self.stop(self._leader())
        self._hold()

    def stop_a_follower(self) -> None:
        self.stop(self._other())
        self._hold()

    def stop_all(self) -> None:
        self.stop(*self.members)
        self._hold()

    def stop_one_and_kill_another(self) -> None:
        one, other = self._some(2)
        self.stop(one)
        self.kill(other)
        self._hold()

    def isolate_the_leader(self) -> None:
        self.isolate(self._leader())
        self._hold()

    def isolate_a_minority(self) -> None:
        self.isolate(*self._minority())
        self._hold()

    def deafen_the_leader(self) -> None:
        leader = self._leader()
        self.cut([m for m in self.members if m is not leader], [leader])
        self._hold()

    def silence_the_leader(self) -> None:
        leader = self._leader()
        self.cut([leader], [m for m in self.members if m is not leader])
        self._hold()

    def cut_a_link(self) -> None:
        """Two members do not hear each other; all others hear both."""
        one, other = self._some(2)
        self.cut([one], [other])
        self.cut([other], [one])
        self._hold()

    def cut_at_random(self) -> None:
        for one in self.members:
            for other in self.members:
                if one is not other and self.random.random() < 0.35:
                    self.cut([one], [other])
        self._hold()

    def stop_the_leader_for_good(self) -> None:
        """What clients asked it meanwhile has an unknown outcome."""
        leader = self._leader()
        self.stop(leader)
        self._hold()
        self._stopped.discard(leader)
        leader.kill()  # without a look at its state: it does not answer

    def isolate_the_leader_for_good(self) -> None:
        """It takes commands into its log until it dies; nobody else has them."""
        leader = self._leader()
        self.isolate(leader)
        self._hold()
        self.kill(leader)

    def isolate_the_leader_and_kill_all(self) -> None:
        self.isolate(self._leader())
        self._hold()
        self.kill(*self.members)

    def hand_over(self) -> None:
        """A leader that is told to end gives leadership away first."""
        leader = self._leader()
        code = leader.terminate()
        if code != 0:
            self.violations.append(f"{leader} was told to end and did with {code}")

    def snapshot(self) -> None:
        member = self.random.choice(self.members)
        response = member.rpc("TakeSnapshot")
        if code_of(response) not in (None, 102, 108, 110):
            self.violations.append(f"TakeSnapshot: {response}")

    def add_a_member(self) -> None:
        if len(self.members) == MEMBERS_MOST:
            return self.remove_a_member()
        member = self.cluster.new_member()
        self._change("AddServer", member, 101)
        self.workload.members = self.members
        return None

    def remove_a_member(self) -> None:
        if len(self.members) == MEMBERS_LEAST:
            return self.add_a_member()
        member = self.random.choice(self.members)
        self._gone.add(member)
        self.workload.members = self.members
        self._change("RemoveServer", member, 102)
        member.kill()
        return None

    def _change(self, method: str, member: Member, done_before: int) -> None:
        """Until it is done; one whose outcome stayed unknown may have been."""
        unknown = False

        def changed() -> bool:
            nonlocal unknown
            asked = self.random.choice([m for m in self.members if m is not member])
            before, unknown = unknown, True  # should the connection end without an answer
            response = asked.rpc(method, {"addr": member.address})
            code = code_of(response)
            if code == done_before and not before:
                self.violations.append(f"{method} {member} of its own is refused: {response}")
            error = response.get("error", {})
            unknown = before or error.get("data", {}).get("outcome") == "unknown"
            return code is None or code == done_before

        wait_for(f"{method} {member}", changed, 60.0)

    def _menu(self) -> list[Callable[[], None]]:
        menu = [
            self.kill_the_leader,
            self.kill_the_leader,
            self.kill_a_follower,
            self.kill_two,
            self.kill_all,
            self.stop_the_leader,
            self.stop_the_leader,
            self.stop_a_follower,
            self.stop_all,
            self.stop_one_and_kill_another,
            self.stop_the_leader_for_good,
            self.hand_over,
            self.add_a_member,
            self.remove_a_member,
            self.snapshot,
        ]
        if self.network is not None:
            menu += [
                self.isolate_the_leader,
                self.isolate_the_leader,
                self.isolate_a_minority,
                self.deafen_the_leader,
                self.silence_the_leader,
                self.isolate_the_leader_for_good,
                self.cut_a_link,
                self.cut_at_random,
                self.isolate_the_leader_and_kill_all,
            ]
        return menu

    def run(self, count: int) -> None:
        """Do `count` of them, one after the other; each time the clients must get on again."""
        menu = self._menu()
        while sum(self.done.values()) < count and not self.workload.done:
            fault = self.random.choice(menu)
            try:
                fault()
            finally:
                self.calm()
            self.done[fault.__name__] += 1
            before = self.workload.acknowledged
            wait_for(
                f"clients get on after {fault.__name__}",
                lambda before=before: (
                    self.workload.acknowledged > before + 5  # type: ignore[misc]
                    or self.workload.done
                ),
                60.0,
            )


def leaders_of_terms(members: list[Member]) -> dict[int, set[str]]:
    """Who said of itself that it led which term."""
    leaders: dict[int, set[str]] = {}
    for member in members:
        text = member.log.read_text(errors="replace") if member.log.exists() else ""
        for term in re.findall(r"Leader in term (\d+)", text):
            leaders.setdefault(int(term), set()).add(member.name)
    return leaders
