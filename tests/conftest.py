"""Fixtures of the whole suite: real clusters, cleaned up whatever happens."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import RUN_VARIABLE, Cluster, processes_of_run

CLUSTERS = pytest.StashKey[list[Cluster]]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background with SIGINT ignored, and members inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes a minute or more; run with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its members said."""
    report = yield
    if report.failed:
        for cluster in item.stash.get(CLUSTERS, []):
            for member in cluster:
                report.sections.append((f"{member.name} {member.address}", member.tail()))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """No process that a test started outlives the run, whoever started it."""
    run = uuid.uuid4().hex
    os.environ[RUN_VARIABLE] = run
    yield
    end = time.monotonic() + 5.0
    while (left := processes_of_run(run)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def make_cluster(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., Cluster]]:
    """make_cluster(n=3, create=True, election=(min, max), **of_cluster) -> Cluster."""
    clusters: list[Cluster] = []
    request.node.stash[CLUSTERS] = clusters

    def make(
        n: int = 3,
        *,
        create: bool = True,
        election: tuple[int, int] | None = None,
        **options: Any,
    ) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster{len(clusters) + 1}", n, **options)
        clusters.append(cluster)
        if create:
            cluster.create(*(election or (None, None)))
        return cluster

    yield make
    faults = []
    for cluster in clusters:
        try:
            cluster.close()
        except AssertionError as error:
            faults.append(str(error))
    assert not faults, faults


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three durable members of the key-value store, created."""
    return make_cluster(3)


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one, in memory, shared by a module: for tests of what a line comes to."""
    cluster = Cluster(tmp_path_factory.mktemp("lone"), 1, durable=False)
    try:
        cluster.create()
        cluster.wait_leader()
    except BaseException:
        cluster.destroy()
        raise
    yield cluster
    cluster.close()
