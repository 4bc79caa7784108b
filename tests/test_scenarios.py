"""Scenarios: conversations with a few cores, each step by hand, whose text is the expectation.

What the files in scenarios/ show is named in their first lines. After a change that is meant
`python3 tests/test_scenarios.py --rewrite` plays them anew; read the difference like prose.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cbuild import ROOT, build, run

SCENARIOS = sorted((ROOT / "tests" / "scenarios").glob("*.txt"))
PLAYER = [
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/scenario/*.c"))),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("csrc/raft/*.c"))),
    "csrc/base/memory.c",
    "csrc/base/random.c",
]
# Shrunk, so that a scenario can reach them.
LIMITS = ["-DRAFT_UNCOMMITTED_ENTRIES_MAX=16", "-DRAFT_IN_FLIGHT_ENTRIES_MAX=12"]


def build_player() -> Path:
    return build("scenario", PLAYER, flags=LIMITS)


@pytest.fixture(scope="module")
def player() -> Path:
    return build_player()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(player: Path, path: Path) -> None:
    run(player, "--check", str(path))


def test_scenarios_say_what_they_show() -> None:
    """A pitfall's or a rule's name, and the source of the rule."""
    for path in SCENARIOS:
        lines = path.read_text().splitlines()
        end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        head = "\n".join(lines[:end])
        assert "# Source: " in head, path.name
        pitfall = re.match(r"([VCMSL])(\d\d)-", path.name)
        if pitfall is not None:
            assert head.startswith(f"# {pitfall[1]}{int(pitfall[2])}: "), path.name
        else:
            assert head.startswith(("# Figure 2, ", "# Dissertation ")), path.name


def test_a_difference_is_seen(player: Path, tmp_path: Path) -> None:
    """The player compares; it is not content with having run."""
    text = SCENARIOS[0].read_text()
    spoiled = tmp_path / "spoiled.txt"
    spoiled.write_text(re.sub(r"^(    .*) term ", r"\1 time ", text, count=1, flags=re.M))
    done = subprocess.run(
        [str(player), "--check", str(spoiled)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "differs" in done.stdout
    spoiled.write_text(text + "\nfly 1\n")
    assert subprocess.run([str(player), "--check", str(spoiled)], check=False).returncode == 1


def test_a_violation_is_one_whatever_is_expected(player: Path, tmp_path: Path) -> None:
    """3 votes for 1, and then for 2 as well."""
    unsafe = tmp_path / "unsafe.txt"
    grants = "".join(
        f"forge 3>2 {kind} term 2 granted\ndeliver 3>2\n"
        for kind in ("prevote-reply", "vote-reply")
    )
    unsafe.write_text(f"start 3\ndisks instant\ncut 2\nelect 1\nheal\ncampaign 2\n{grants}")
    subprocess.run([str(player), "--rewrite", str(unsafe)], check=False)
    assert "VIOLATION: 1 and 2 lead term 2" in unsafe.read_text()
    assert subprocess.run([str(player), "--check", str(unsafe)], check=False).returncode == 1


if __name__ == "__main__":
    if sys.argv[1:2] != ["--rewrite"]:
        sys.exit(f"usage: {sys.argv[0]} --rewrite [FILE...]")
    run(build_player(), "--rewrite", *(sys.argv[2:] or map(str, SCENARIOS)))
