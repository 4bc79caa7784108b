"""Stored things in words, for people."""

from __future__ import annotations

import datetime
from typing import Any

from raftpico._datadir import Entry


def describe(meta: dict[str, Any]) -> str:
    """A record of meta.jsonl in words."""
    if meta["node"] == 0:
        return f"{meta['address'] or 'a server'}, in no cluster yet"
    vote = f"voted for node {meta['voted_for']}" if meta["voted_for"] else "no vote given"
    removed = ", removed from its cluster" if meta["removed"] else ""
    return (
        f"{meta['address']}, node {meta['node']} of cluster {meta['cluster']}{removed}, "
        f"start {meta['incarnation']}, term {meta['term']}, {vote}"
    )


def stamp(time_ms: int) -> str:
    """A time of the leader's clock for people."""
    try:
        when = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{time_ms % 1000:03}"


def row(entry: Entry, width: int | None) -> str:
    """An entry on one line."""
    tag = "/".join(map(str, entry.tag)) if entry.tag else "-"
    text = entry.text if entry.kind == "command" else f"{entry.kind} {entry.text}".rstrip()
    made = f"{entry.index:>10} {entry.term:>6}  {stamp(entry.time_ms)}  {tag:10}  {text}"
    return made if width is None or len(made) <= width else made[: width - 3] + "..."
