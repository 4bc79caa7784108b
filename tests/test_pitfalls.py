"""Every known pitfall, and every rule of Raft, has a test, and the list of them is true."""

from __future__ import annotations

import re
from pathlib import Path

from cbuild import ROOT

TESTS = ROOT / "tests"
LIST = TESTS / "pitfalls.txt"


def numbers(letter: str, *ranges: str) -> set[str]:
    found = set()
    for text in ranges:
        first, _, last = text.partition("-")
        found |= {f"{letter}{n}" for n in range(int(first), int(last or first) + 1)}
    return found


PITFALLS = (
    numbers("V", "1-9", "11-15", "17-20")
    | numbers("C", "1-10", "12-13", "15-18")
    | numbers("M", "1-4", "6-14", "16-18")
    | numbers("S", "1-4", "6-9", "11-12", "15")
    | numbers("L", "1-4", "6-7", "9-10")
    | numbers("D", "1-12")
    | numbers("F", "1-6")
) - {"C11", "M5", "L5"}
RULES = (
    numbers("AE", "1-5")
    | numbers("RV", "1-2")
    | numbers("FO", "1-2")
    | numbers("CA", "1-4")
    | numbers("LE", "1-4")
    | {"AS2", "ST1"}
    | {"T3.4", "T3.5", "T3.6.1", "T3.6.2", "T3.7", "T3.8", "T3.10"}
    | {"T4.1", "T4.2.1", "T4.2.2", "T4.2.3", "T4.3", "T6.2", "T6.4", "T9.6"}
    | {"T10.2.1", "T10.2.2"}
)
# Not tested yet; what is meant to test it stands in the list.
OPEN = {"S15"}


def read_list() -> dict[str, list[str]]:
    """id -> its places."""
    places: dict[str, list[str]] = {}
    for line in LIST.read_text().splitlines():
        if line.startswith("#") or not line:
            continue
        if line.startswith("    "):
            places[list(places)[-1]].append(line.strip())
        else:
            key, _, statement = line.partition("  ")
            assert re.fullmatch(r"[A-Z]+[\d.]+", key) and statement, line
            assert key not in places, f"{key} stands twice"
            places[key] = []
    return places


def scenario(place: str) -> Path:
    return TESTS / "scenarios" / f"{place.removeprefix('scenario ')}.txt"


def header(path: Path) -> str:
    return path.read_text().split("\n\n")[0]


def test_every_pitfall_and_every_rule_has_a_place() -> None:
    places = read_list()
    assert set(places) == PITFALLS | RULES
    assert {key for key in places if not places[key]} == set()
    assert {key for key, found in places.items() if found[0].startswith("open: ")} == OPEN


def test_every_place_exists() -> None:
    missing = []
    for key, places in read_list().items():
        for place in places:
            if place.startswith("open: "):
                continue
            if place.startswith("scenario "):
                good = scenario(place).is_file()
            else:
                name, _, function = place.partition(":")
                definition = rf"^(?:def|static .*|void|\w.*) ?\*?\b{function}\("
                path = TESTS / name
                good = path.is_file() and bool(re.search(definition, path.read_text(), re.M))
            missing += [] if good else [f"{key}: {place}"]
    assert not missing


def test_every_scenario_is_in_the_list_and_names_its_id() -> None:
    places = read_list()
    listed = {place for found in places.values() for place in found}
    for path in sorted((TESTS / "scenarios").glob("*.txt")):
        assert f"scenario {path.stem}" in listed, f"{path.name} is in no place of {LIST.name}"
    for key in PITFALLS - OPEN:
        own = [header(scenario(p)) for p in places[key] if p.startswith("scenario ")]
        assert not own or any(re.search(rf"^# {key}: ", text, re.M) for text in own), key


def test_every_core_pitfall_is_among_the_mistakes_or_said_to_be_elsewhere() -> None:
    """What the scenarios show can also be broken on purpose."""
    text = (TESTS / "mutations" / "core.txt").read_text()
    broken = set(re.findall(r"^[\w-]+: ([A-Z]\d+), ", text, re.M))
    assert broken <= PITFALLS
    without = {key for key in PITFALLS if key[0] in "VCM" and key not in broken}
    assert without <= {"V14", "V20", "C8", "C16", "M14", "M16", "M17", "M18"}
