"""Single corruptions of a data directory, by a seed; and lines sealed without our own code."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Image = dict[str, bytes]
"""The files of a directory by name."""


def read_image(directory: Path) -> Image:
    """The files as they are, without the lock."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


def write_image(image: Image, directory: Path) -> None:
    """Make the directory hold that and nothing else."""
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for name, content in image.items():
        (directory / name).write_bytes(content)


def crc32c(seed: int, data: bytes) -> int:
    """Castagnoli's, bit by bit: the format as its description says, without our code."""
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def seal(members: dict[str, Any], seed: int) -> bytes:
    """A stored line of these members, as csrc/wire/line.h describes it."""
    body = json.dumps(members, separators=(",", ":"))[:-1]
    return f'{body},"crc32c":"{crc32c(seed, body.encode()):08x}"}}\n'.encode()


def _text_end(content: bytes) -> int:
    return len(content.rstrip(b"\n"))


def _splice(content: bytes, at: int, put: bytes) -> bytes:
    return content[:at] + put + content[at + len(put) :]


def flip_anywhere(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content))
    return _splice(content, at, bytes([content[at] ^ (1 << dice.randrange(8))]))


def flip_text(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(_text_end(content) + 1)
    return _splice(content, at, bytes([content[at] ^ (1 << dice.randrange(8))]))


def garbage(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(_text_end(content))
    return _splice(content, at, dice.randbytes(dice.randint(1, 40)))[: len(content)]


def zeros(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(_text_end(content))
    size = dice.randint(1, 600)
    if dice.random() < 0.5:
        at, size = at - at % 512, 512
    return _splice(content, at, bytes(size))[: len(content)]


def line_feeds(content: bytes, dice: random.Random) -> bytes:
    """As a sector that never reached the disk."""
    at = dice.randrange(_text_end(content)) // 512 * 512
    return _splice(content, at, b"\n" * 512)[: len(content)]


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(_text_end(content) + 1)]


def blank_tail(content: bytes, dice: random.Random) -> bytes:
    """As a write that was torn: filling from some byte on."""
    at = dice.randrange(_text_end(content))
    return content[:at] + b"\n" * (len(content) - at)


def grow(content: bytes, dice: random.Random) -> bytes:
    return content + dice.choice([b"\n", b"\0" * 700, b'{"index":', content[:300], b"\n" * 512])


def swap_lines(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return flip_text(content, dice)
    at = dice.randrange(len(lines) - 1)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return b"".join(lines)


def repeat_lines(content: bytes, dice: random.Random) -> bytes:
    """Drop some lines, or double them."""
    lines = content.splitlines(keepends=True)
    at = dice.randrange(len(lines))
    end = at + dice.randint(1, 3)
    return b"".join(lines[:at] + lines[at:end] * dice.choice([0, 2]) + lines[end:])


def repeat_bytes(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(_text_end(content))
    end = at + dice.randint(1, 100)
    return content[:at] + content[at:end] * dice.choice([0, 2]) + content[end:]


WAYS: list[Callable[[bytes, random.Random], bytes]] = [
    flip_anywhere,
    flip_text,
    flip_text,
    garbage,
    zeros,
    line_feeds,
    cut,
    blank_tail,
    grow,
    swap_lines,
    repeat_lines,
    repeat_bytes,
]


def corrupt(image: Image, dice: random.Random) -> tuple[Image, str]:
    """The image with one thing wrong, and what that is."""
    name = dice.choice(sorted(n for n in image if image[n].strip(b"\n")))
    damaged = dict(image)
    if dice.random() < 0.05:
        del damaged[name]
        return damaged, f"{name}: removed"
    if dice.random() < 0.05:
        other = dice.choice(sorted(image))
        damaged[name] = image[other]
        return damaged, f"{name}: the content of {other}"
    way = dice.choice(WAYS)
    damaged[name] = way(image[name], dice)
    return damaged, f"{name}: {way.__name__}"
