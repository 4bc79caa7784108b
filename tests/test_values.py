"""Values between JSON text and Python: equal to the json module's, but for what is no JSON."""

from __future__ import annotations

import collections
import enum
import gc
import importlib.util
import json
import math
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cbuild import ROOT, build

SOURCES = [
    "tests/c/values_module.c",
    *(f"csrc/python/{name}.c" for name in ("value_read", "value_write", "key_cache")),
    *(f"csrc/wire/{name}.c" for name in ("scan", "scan_text", "scanner")),
    *(f"csrc/base/{name}.c" for name in ("buffer", "memory", "status")),
]
DEPTH_MAX = 128


def build_module(name: str, sanitize: bool) -> Path:
    """The module's file; `name` is its folder, since a module has but one name."""
    flags = ["-fPIC", "-shared", "-O2", f"-isystem{sysconfig.get_path('include')}"]
    path = build(f"{name}.so", SOURCES, sanitize=sanitize, flags=flags)
    place = path.parent / name / "values_module.so"
    place.parent.mkdir(exist_ok=True)
    return path.rename(place)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("values_module", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values() -> ModuleType:
    return load(build_module("values", sanitize=False))


def same(a: object, b: object) -> bool:
    """Equal, of the same types all the way down, in the same order, with the same sign."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return a == b


TEXTS = [
    "null", "true", "false", "0", "-0", "7", "-7", "999999999999999999", "1000000000000000000",
    "-999999999999999999", "-1000000000000000000", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 63,
    "1" + "0" * 64, "9" * 4300, "-" + "9" * 4300, "0.1", "-0.0", "0.0", "1E2", "1e-7",
    "1.5e300",
    "5e-324", "1e-400", "2.2250738585072011e-308", "0." + "1" * 80, "1" + "0" * 300 + ".5",
    "123456789.123456789", "1.7976931348623157e308", "9007199254740993.0", "0e0", "-0e5", '""',
    '"a"', '"a string of more than sixteen bytes"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0000"',
    '"\\u00e9\\u20ac\\ud834\\udd1e"', '"\u00e9"', '"\u20ac"', '"\U0001d11e"', '"\\ud800"',
    '"\\udc00"', '"\\ud800\\ud800\\udc00"', '"\\ud800x\u00e9"', '"\\udc00\\ud800"',
    '"\\udc00\\udc00"',
    '"\x7f"',
    '"' + "x" * 1000 + '\\n"', '"' + "\u00e9" * 1000 + '"', '"' + "\\u00e9" * 1000 + '"', "[]",
    "{}", "[[]]", "[{}]", '{"":{}}', " [ 1 , 2 ] ", '\n{ "a" : 1 , "b" : [ ] }\t\r', "[1,2,3]",
    '{"a":1,"b":2,"a":3}', '{"a":1,"\\u0061":2}', '{"k":1,"\u00e9":2,"\\u00e9":3}',
    '{"' + "k" * 31 + '":1,"' + "k" * 32 + '":2,"' + "k" * 33 + '":3}', '{"\\ud800":1}',
    "[" * DEPTH_MAX + "]" * DEPTH_MAX, '{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX,
    '{"Put":["key-00012",123]}', '[{"a":1},{"a":2},{"a":3}]',
]  # fmt: skip

NOT_JSON = [
    b"", b" ", b"nul", b"nulll", b"tru", b"[", b"]", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]",
    b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b"{a:1}", b"{1:1}", b'{"a" 1}',
    b"01", b"-", b"-01", b"+1", b"1.", b".1", b"1e", b"1e+", b"0x1", b"1_0", b"NaN",
    b"Infinity",
    b"-Infinity", b"1 2", b"[]]", b"1\x00", b"\x00", b'"', b'"a', b'"\\', b'"\\x"', b'"\\u12"',
    b'"\\u12g4"', b'"\n"', b'"\x00"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xc3',
    b"\xef\xbb\xbf1", b"'a'", b'"a"x', b"--1", b"1-", b"1e5.5", b"00", b"1.e5", b"[1}",
    b'{"a":1]',
    b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), b"[" * 1_000_000, b'{"a":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_reads_as_json_does(values: ModuleType, text: str) -> None:
    for _ in range(3):  # names come from the cache the second time, interned the third
        assert same(values.loads(text.encode("utf-8")), json.loads(text))


@pytest.mark.parametrize("text", NOT_JSON, ids=lambda text: repr(text[:20]))
def test_refuses_what_is_no_json(values: ModuleType, text: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON at byte"):
        values.loads(text)


def test_says_where(values: ModuleType) -> None:
    with pytest.raises(ValueError, match="not JSON at byte 4: a value should begin here"):
        values.loads(b"[1, ]")


@pytest.mark.parametrize("text", ["1e400", "-1e400", "[1e999999]", "1" + "0" * 400 + ".0"])
def test_refuses_numbers_beyond_float(values: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="number out of range"):
        values.loads(text.encode())


def test_refuses_integers_beyond_the_limit_of_digits(values: ModuleType) -> None:
    digits = sys.get_int_max_str_digits()
    with pytest.raises(ValueError, match="limit"):
        values.loads(b"9" * (digits + 1))
    with pytest.raises(ValueError, match="more digits than Python converts"):
        values.dumps(10 ** (digits + 1))
    assert values.dumps([10**4000]) == b"[1" + b"0" * 4000 + b"]"


class Number(enum.IntEnum):
    ONE = 1


class Name(enum.StrEnum):
    A = "a\u00e9"


class Liar(int):
    def __repr__(self) -> str:
        return "liar"

    __str__ = __repr__


class FloatLiar(float):
    def __repr__(self) -> str:
        return "liar"

    __str__ = __repr__


Pair = collections.namedtuple("Pair", "x y")

moved = collections.OrderedDict(a=1, b=2, c=3)
moved.move_to_end("a")

OBJECTS: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**50, 0.1, -0.0, 1e16,
    1e22, 1e-7, 100.0, 5e-324, 1.7976931348623157e308, "", "a", 'q"b\\s/\b\f\n\r\t\x00\x1f\x7f',
    "\u00e9", "\u20ac", "\U0001d11e", "\ud800", "\udfff", "x\ud800\u00e9", "\u00ff" * 300,
    "\u0100" * 300, "\U00010000" * 300, "a" * 300 + "\u00e9", "\u2028\u2029", [], {}, (), [[]],
    (1, (2, [3])), {"a": 1, "b": [True, None]}, {1: 1, -1: 2, 1.5: 3, True: 4, None: 5},  # noqa: F601
    {False: 1, 10**30: 2, -0.0: 3}, Number.ONE, Name.A, {Number.ONE: Name.A, Name.A: 1},  # noqa: F601
    Liar(7),
    {Liar(7): Liar(7)}, FloatLiar(0.5), {FloatLiar(0.5): 1}, Pair(1, 2), moved,
    collections.defaultdict(list, a=[1]), collections.Counter("aab"), {"\ud800": "\udc00"},
]  # fmt: skip


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: ascii(value)[:20])
def test_writes_as_json_does(values: ModuleType, value: object) -> None:
    text = values.dumps(value)
    assert b"\n" not in text and b" " not in text.replace(b'" "', b"")
    assert same(json.loads(text), json.loads(json.dumps(value)))
    try:
        expected = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return  # a lone surrogate: written as an escape
    assert text == expected


def test_writes_lone_surrogates_as_escapes(values: ModuleType) -> None:
    assert values.dumps("\ud800\u00e9\udfff") == b'"\\ud800\xc3\xa9\\udfff"'


class NoItems(dict):
    def items(self) -> Any:
        return [(1, 2, 3)]


class ItemsThatAreNone(dict):
    def items(self) -> Any:
        return None


class ItemsThatRaise(dict):
    def items(self) -> Any:
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "NaN is no JSON number"),
        (math.inf, "Infinity is no JSON number"),
        ([-math.inf], "-Infinity is no JSON number"),
        ({math.nan: 1}, "NaN is no JSON number"),
        ({1, 2}, "a value of type set is no JSON"),
        ({"a": b"x"}, "a value of type bytes is no JSON"),
        ([object()], "a value of type object is no JSON"),
        (1j, "a value of type complex is no JSON"),
        ({(1, 2): 3}, "keys must be str, int, float, bool or None, not tuple"),
        ({b"a": 3}, "keys must be str, int, float, bool or None, not bytes"),
        (NoItems(a=1), r"items\(\) of a dict must give pairs, not tuple"),
    ],
)
def test_refuses_to_write(values: ModuleType, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        values.dumps(value)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        values.dumps([1, {"a": value}])


def test_keeps_an_exception(values: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        values.dumps([1, ItemsThatRaise(a=1)])
    with pytest.raises(TypeError):
        values.dumps(ItemsThatAreNone(a=1))


def nest(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_depth(values: ModuleType, kind: type) -> None:
    assert json.loads(values.dumps(nest(DEPTH_MAX, kind))) is not None
    with pytest.raises(ValueError, match="nested deeper than the limit of 128 levels"):
        values.dumps(nest(DEPTH_MAX + 1, kind))
    with pytest.raises(ValueError, match="nested deeper"):
        values.dumps(nest(100_000, kind))


def test_cycles(values: ModuleType) -> None:
    array: list[Any] = []
    array.append(array)
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    for value in (array, mapping, collections.OrderedDict(a=array)):
        with pytest.raises(ValueError, match="nested deeper"):
            values.dumps(value)


class Spoiler(dict):
    """Its items() does what its owner has put into `spoil` first."""

    spoil: Callable[[], object]

    def items(self) -> Any:
        self.spoil()
        gc.collect()
        return [("a", "b" * 3)]


def test_containers_that_change_while_they_are_written(values: ModuleType) -> None:
    spoiler = Spoiler()
    array: list[Any] = [spoiler, "never"]
    spoiler.spoil = array.clear
    assert values.dumps(array) == b'[{"a":"bbb"}]'

    mapping: dict[str, Any] = {"a": spoiler, "b": 1}
    spoiler.spoil = lambda: mapping.update(json.loads(LARGE))
    with pytest.raises(ValueError, match="a dict changed while it was written"):
        values.dumps(mapping)

    mapping = {"a": spoiler, "b": 1}
    spoiler.spoil = mapping.clear
    with pytest.raises(ValueError, match="a dict changed while it was written"):
        values.dumps(mapping)

    # As many as before, but others: whatever comes out, nothing is read that is gone.
    mapping = {"a": spoiler, "b": 1}
    spoiler.spoil = lambda: (mapping.pop("a"), mapping.update(c=[2]))
    assert values.dumps(mapping).startswith(b'{"a":{"a":"bbb"}')


LARGE = json.dumps({str(i): i for i in range(100)})
ALPHABET = ["a", "b", " ", '"', "\\", "\n", "\x00", "\x7f", "\u00e9", "\u20ac", "\U0001f600"]


def make_string(rng: random.Random) -> str:
    return "".join(rng.choices(ALPHABET, k=rng.randrange(40)))


def make_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8 if depth < 5 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([-1, 1]) * rng.getrandbits(rng.choice([4, 30, 62, 63, 64, 65, 200]))
    if kind == 2:
        return rng.choice([rng.random(), rng.uniform(-1e300, 1e300), rng.random() * 1e-300])
    if kind < 6:
        return make_string(rng)
    if kind == 6:
        return [make_value(rng, depth + 1) for _ in range(rng.randrange(6))]
    return {make_string(rng): make_value(rng, depth + 1) for _ in range(rng.randrange(6))}


def random_values(count: int) -> Iterator[Any]:
    rng = random.Random(20240517)
    for _ in range(count):
        yield make_value(rng)


def test_random_values(values: ModuleType) -> None:
    for value in random_values(3000):
        text = values.dumps(value)
        assert text.decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert same(values.loads(text), value)
        assert same(values.loads(json.dumps(value, indent=1).encode()), value)


def test_random_floats_and_numbers(values: ModuleType) -> None:
    rng = random.Random(3)
    for _ in range(20000):
        digits = "".join(rng.choices("0123456789", k=rng.randrange(1, 25))).lstrip("0") or "0"
        text = digits
        if rng.random() < 0.7:
            text += "." + "".join(rng.choices("0123456789", k=rng.randrange(1, 25)))
        if rng.random() < 0.7:
            text += f"e{rng.randrange(-320, 280)}"
        number = values.loads(text.encode())
        assert same(number, json.loads(text))
        assert same(values.loads(values.dumps(number)), number)


def test_spoiled_texts(values: ModuleType) -> None:
    """What either of the two takes, both take, and alike; but for what is no JSON."""
    rng = random.Random(11)
    pieces = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"0", b"-", b".", b"e", b"1",
              b"n",
              b"\xc3", b"\x00", b" "]  # fmt: skip

    def constant(name: str) -> None:
        raise ValueError(name)

    for value in random_values(1500):
        text = bytearray(json.dumps(value, ensure_ascii=rng.random() < 0.5).encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randrange(2)] = rng.choice(pieces)
        try:
            expected = json.loads(text.decode(), parse_constant=constant)
        except ValueError:
            with pytest.raises(ValueError):
                values.loads(bytes(text))
            continue
        try:
            number = values.loads(bytes(text))
        except ValueError as error:
            assert "number out of range" in str(error)  # json makes an infinity of it
            continue
        assert same(number, expected)


def test_names_are_shared_and_bounded(values: ModuleType) -> None:
    for _ in range(3):
        values.loads(b'{"shared_name_of_a_test":1}')
    assert next(iter(values.loads(b'{"shared_name_of_a_test":1}'))) is sys.intern(
        "shared_name_of_a_test"
    )
    interned = 0
    for i in range(20_000):
        text = b'{"name-%d":1}' % i
        assert values.loads(text) == values.loads(text) == {f"name-{i}": 1}
        interned += next(iter(values.loads(text))) is sys.intern(f"name-{i}")
    assert 500 < interned <= 1024


def test_names_are_not_confused(values: ModuleType) -> None:
    """The UTF-8 of one name can be the Latin-1 of another that has the same slot."""
    for pair in range(0xC280, 0xE000):
        try:
            name = pair.to_bytes(2, "big").decode()
        except UnicodeDecodeError:
            continue
        for each in (pair.to_bytes(2, "big").decode("latin-1"), name):
            assert values.loads(b'{"%s":1}' % each.encode()) == {each: 1}


def hold_what_they_held(values: ModuleType, turns: int) -> None:
    """Every way through, with errors on all of them."""
    for _ in range(turns):
        for text in TEXTS:
            values.loads(text.encode())
        for bad in NOT_JSON:
            if len(bad) < 1000:
                with pytest.raises(ValueError):
                    values.loads(bad)
        for value in OBJECTS:
            values.dumps(value)
        for value in ([math.nan], {"a": {1}}, {"b": {(): 1}}, NoItems(a=1), [10**5000]):
            with pytest.raises(ValueError):
                values.dumps(value)
        with pytest.raises(RuntimeError):
            values.dumps([ItemsThatRaise(a=1)])


def test_no_reference_is_lost(values: ModuleType) -> None:
    watched: list[Any] = [None, True, False, *OBJECTS]
    key = "a key of this test that nobody else has"
    held = {key: [Pair(1, 2)]}
    hold_what_they_held(values, 3)
    gc.collect()
    before = [sys.getrefcount(value) for value in watched]
    for _ in range(200):
        values.dumps(held)
    hold_what_they_held(values, 20)
    gc.collect()
    after = [sys.getrefcount(value) for value in watched]
    wrong = [
        (value, first, last)
        for value, first, last in zip(watched, before, after, strict=True)
        if abs(last - first) > 15  # the interpreter itself takes some of None and the like
    ]
    assert not wrong
    assert sys.getrefcount(held) <= 3 and sys.getrefcount(held[key]) <= 3


def test_no_memory_is_lost(values: ModuleType) -> None:
    hold_what_they_held(values, 3)
    gc.collect()
    tracemalloc.start()
    try:
        hold_what_they_held(values, 2)
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        hold_what_they_held(values, 20)
        gc.collect()
        last = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert last - first < 10_000
    text = json.dumps(["x" * 20_000 + "\\\u00e9", {"k": [0.5, 2**70] * 500}] * 5).encode()
    value = values.loads(text)
    tracemalloc.start()
    try:
        values.loads_turns(text, 10)
        values.dumps_turns(value, 10)
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    # What is not Python's own memory shows here alone.
    values.loads_turns(text, 20)
    values.dumps_turns(value, 20)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values.loads_turns(text, 400)
    values.dumps_turns(value, 400)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 20_000


def sanitizer_library() -> str | None:
    done = subprocess.run(
        [os.environ.get("CC", "cc"), "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=False,
    )
    path = done.stdout.strip()
    return path if done.returncode == 0 and Path(path).is_absolute() else None


def test_under_the_sanitizer() -> None:
    """The same in a Python of its own, each block on the plain heap."""
    library = sanitizer_library()
    if library is None:
        pytest.skip("no libasan to put before Python")
    path = build_module("values_sanitized", sanitize=True)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_values as t\n"
        "module = t.load(Path(sys.argv[2]))\n"
        "t.hold_what_they_held(module, 1)\n"
        "for bad in t.NOT_JSON:\n"
        "    with t.pytest.raises(ValueError):\n"
        "        module.loads(bad)\n"
        "t.test_containers_that_change_while_they_are_written(module)\n"
        "t.test_cycles(module)\n"
        "for value in t.random_values(300):\n"
        "    assert t.same(module.loads(module.dumps(value)), value)\n"
        "t.test_spoiled_texts(module)\n"
        "print('ok')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "tests"), str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            **os.environ,
            "LD_PRELOAD": library,
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )
    assert done.returncode == 0 and done.stdout == "ok\n", done.stdout + done.stderr


if __name__ == "__main__":  # a table of times, by hand
    import timeit

    timed = load(build_module("values", sanitize=False))
    try:
        import orjson
    except ImportError:
        orjson = None
    for sample in (
        b'{"Put":["key-00012",123]}',
        b'{"Put":{"key":"foo","value":1}}',
        b'{"Get":"key-00012"}',
        b'{"a":[1,2.5,"\xc3\xa9",null,true,{"b":"a longer string of some words"}]}',
    ):
        decoded = json.loads(sample)

        def best(call: Any, *args: Any, inside: int = 1) -> float:
            turns = 20_000 // inside
            times = timeit.repeat(lambda: call(*args), number=turns, repeat=7)
            return min(times) / turns / inside * 1e9

        print(sample.decode())
        print(f"  read   {best(timed.loads_turns, sample, 1000, inside=1000):7.0f} ns", end="")
        print(f"   json {best(json.loads, sample):7.0f} ns", end="")
        print(f"   orjson {best(orjson.loads, sample):7.0f} ns" if orjson else "")
        print(f"  write  {best(timed.dumps_turns, decoded, 1000, inside=1000):7.0f} ns", end="")
        print(f"   json {best(json.dumps, decoded):7.0f} ns", end="")
        print(f"   orjson {best(orjson.dumps, decoded):7.0f} ns" if orjson else "")
