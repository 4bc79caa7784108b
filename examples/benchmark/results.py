"""What was measured: every round's figures, medians, and the JSON file."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from .load import Figures


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


class Results:
    """rounds[group][row][system] is a list with the figures of each round."""

    def __init__(self) -> None:
        self.machine = machine()
        self.options: dict[str, Any] = {}
        self.rounds: dict[str, dict[str, dict[str, list[Figures]]]] = {}
        self.stalls: list[str] = []  # "SYSTEM, round N, GROUP: why"

    def add(self, group: str, row: str, system: str, figures: Figures) -> None:
        rows = self.rounds.setdefault(group, {})
        rows.setdefault(row, {}).setdefault(system, []).append(figures)

    def look(self, row: str, system: str) -> Figures:
        """The medians over the rounds; {} where nothing was measured."""
        for rows in self.rounds.values():
            rounds = rows.get(row, {}).get(system)
            if rounds:
                names = rounds[0].keys()
                return {n: statistics.median(r[n] for r in rounds if n in r) for n in names}
        return {}

    def systems(self, group: str) -> list[str]:
        """Those with a figure in the group, in the order in which they ran."""
        rows = self.rounds.get(group, {})
        return list(dict.fromkeys(system for row in rows.values() for system in row))

    def write(self, path: Path) -> None:
        about = {"machine": self.machine, "options": self.options}
        told = about | {"rounds": self.rounds, "stalls": self.stalls}
        path.write_text(json.dumps(told, indent=1) + "\n")

    @classmethod
    def read(cls, *paths: Path) -> Results:
        """What write() has written, to print it again. Of several files: the first one's
        machine and options, and all the rounds that were measured."""
        made = cls()
        for told in (json.loads(path.read_text()) for path in paths):
            if not made.rounds:
                made.machine, made.options = told["machine"], told["options"]
            made.stalls += told["stalls"]
            for group, rows in told["rounds"].items():
                for row, systems in rows.items():
                    for system, rounds in systems.items():
                        for figures in rounds:
                            made.add(group, row, system, figures)
        return made
