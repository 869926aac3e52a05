"""Mutants of honest inputs, each a function of a seed and a number, so that a crash can be repeated.

Knows bytes, and the wire format of protobuf as far as swapping whole fields goes; does not know what the bytes mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

# Inputs that break parsers: limits of numbers, halves of characters, wrong lengths, terminal and format characters.
TOKENS: Final[tuple[bytes, ...]] = (
    b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf",
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-0", b"1e-400", b"99999999999999999999999", b"0x10", b"null",
    b"true", b"{}", b"[]", b'""', b"\\ud800", b"\\u0000", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n",
    b"\r\n", b"9999-12-31T23:59:59.999999999Z", b"0000-00-00", b"2024-02-30", b"+24:00", b"\xcb\x7f\xf8" + b"\0" * 6,
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc7\xff\xff", b"\xd7\xff" + b"\xff" * 8,
    b"\xdb\xff\xff\xff\xff", b"unique_id", b"ds", b"y", b"specversion", b"data", b"data_base64",
)  # fmt: skip
_MOST_BYTES: Final = 4_096


def mutant(seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Return input `number` of the run that `seed` names."""
    dice = random.Random(f"{seed}/{number}")  # noqa: S311  nothing here is secret
    if number < len(seeds):
        return seeds[number]
    data = bytearray(dice.choice(seeds)) if dice.random() < 0.95 else bytearray(dice.randbytes(dice.randrange(64)))
    for _ in range(1 << dice.randrange(5)):
        dice.choice(_STEPS)(dice, data, seeds)
    return bytes(data[:_MOST_BYTES])


_Step = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _insert(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(TOKENS)


def _replace(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    token = dice.choice(TOKENS)
    data[at : at + len(token)] = token


def _delete(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.randrange(1, 9)]


def _cut(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _repeat(dice: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    at = dice.randrange(len(data) + 1)
    part = data[at : at + dice.randrange(1, 17)]
    data[at:at] = part * dice.choice((1, 2, 50))


def _splice(dice: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = dice.choice(seeds)
    at, start = dice.randrange(len(data) + 1), dice.randrange(len(other) + 1)
    data[at:] = other[start:]


_STEPS: Final[tuple[_Step, ...]] = (_flip, _set, _insert, _replace, _delete, _cut, _repeat, _splice)
