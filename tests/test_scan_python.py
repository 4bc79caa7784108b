"""The scanner against Python's json, on random and on hostile documents.

Where the two differ, `known_difference` says why ours is right.
"""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cbuild import ENVIRONMENT, build
from test_wire import BASE, SCAN

DEPTH_MAX = 128
COUNT = 10_000

# What spoils a document: bytes of the grammar at a wrong place, and what is none of it.
PIECES = (
    *(b"", b",", b'"', b"\\", b"]", b"}", b"0", b"-", b".", b"e", b"+", b"\\x", b"\\u12"),
    *(b"\x00", b"\x0b", b"\x1f", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(b"NaN", b"Infinity", b"//", b"'", b"\xef\xbb\xbf", b"\xc2\xa0"),
)


@functools.cache
def program() -> Path:
    return build("scan_verdicts", ["tests/c/scan_verdicts.c", *SCAN, *BASE])


def verdicts(texts: list[bytes]) -> list[str]:
    stream = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run([str(program())], input=stream, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    said = done.stdout.decode().splitlines()
    assert len(said) == len(texts)
    return said


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")  # RFC 8259, section 6; Python takes NaN, Infinity


def python_takes(text: bytes) -> bool:
    """Strictly: UTF-8 as RFC 8259 has it, and no constants of Python's own."""
    try:
        json.loads(text.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def known_difference(text: bytes, ours: str) -> bool:
    """Ours refuses what is nested deeper than its documented limit, which RFC 8259 section 9
    allows. Ours carries integers of any number of digits; Python reads 4,300 at most."""
    if "nested deeper" in ours:
        return text.count(b"[") + text.count(b"{") > DEPTH_MAX
    return ours == "good" and len(text) > 4300


def compare(texts: list[bytes]) -> int:
    """How many both take; fails where they differ and should not."""
    good = 0
    for text, ours in zip(texts, verdicts(texts), strict=True):
        theirs = python_takes(text)
        if theirs != (ours == "good"):
            assert known_difference(text, ours), (text[:300], ours, theirs)
        good += theirs
    return good


def value(generator: random.Random, depth: int = 0) -> Any:
    kind = generator.randrange(4 if depth < 4 else 2)
    if kind == 0:
        return generator.choice([None, True, False, 0, -1, 0.5, 1e300, -0.0, 2**70, 1e-7])
    if kind == 1:
        letters = 'ab"\\/\n\t\x00\x1f\x7f\u00e9\u20ac\ud800\udfff\U0001d11e '
        return "".join(generator.choices(letters, k=generator.randrange(20)))
    if kind == 2:
        return [value(generator, depth + 1) for _ in range(generator.randrange(4))]
    return {
        f"k{generator.randrange(9)}": value(generator, depth + 1)
        for _ in range(generator.randrange(4))
    }


def spoilt(generator: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(data) + 1)
        piece = generator.choice(PIECES)
        data[at : at + generator.randrange(3)] = piece
    return bytes(data)


def test_random_documents() -> None:
    generator = random.Random(20240602)
    texts = []
    for _ in range(COUNT // 2):
        made = value(generator)
        ascii_only = generator.random() < 0.5
        indent = generator.choice([None, None, 1])
        text = json.dumps(made, ensure_ascii=ascii_only, indent=indent)
        sound = text.encode("utf-8", errors="surrogatepass")
        texts += [sound, spoilt(generator, sound)]
    good = compare(texts)
    assert COUNT // 4 < good < COUNT - COUNT // 8, good


def test_noise() -> None:
    generator = random.Random(3)
    letters = b'[]{}",:0123456789-+.eEtruefalsn \\/u\t\n\x00\x80\xc3\xff'
    texts = [bytes(generator.choices(letters, k=generator.randrange(12))) for _ in range(COUNT)]
    assert compare(texts) > 100


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_hostile_depth(opening: bytes) -> None:
    closing = bytes({91: 93, 123: 125}[byte] for byte in reversed(opening) if byte in (91, 123))
    inside = b"" if opening.endswith(b"[") else b"1"
    deep = [opening * n + inside + closing * n for n in (1, 60, 64, 65, 128, 129, 400)]
    compare([*deep, opening * 200_000, closing * 200_000, opening * 200_000 + b"\x00"])


def test_hostile_texts() -> None:
    texts = [
        b"",
        b" ",
        b"1" * 5000,
        b"-" * 5000,
        b"1e" + b"9" * 5000,
        b"0." + b"0" * 100_000 + b"1",
        b'"' + b"\\" * 99_999,
        b'"' + b"\\\\" * 50_000 + b'"',
        b'"' + b"\\ud800" * 20_000 + b'"',
        b'"' + b"\xf0\x9d\x84\x9e" * 20_000 + b'"',
        b'"' + b"\xf0\x9d\x84\x9e" * 20_000 + b"\xf0\x9d\x84" + b'"',
        b"[" + b"1," * 100_000 + b"1]",
        b"[" + b"1," * 100_000 + b"]",
        b"{" + b'"a":1,' * 100_000 + b'"a":1}',
        b"[1]\x00",
        b"\xef\xbb\xbf[1]",
        "[1]".encode("utf-16"),
        "[1]".encode("utf-32"),
    ]
    assert compare(texts) >= 6
