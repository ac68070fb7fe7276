"""Damaged copies of a file."""

from __future__ import annotations

import random


def damaged(content: bytes, seed: int, count: int) -> list[bytes]:
    """Single bits turned, and whole words turned into offsets and counts out of every range; every seventh is cut short."""
    choose = random.Random(seed)  # noqa: S311 - for tests
    found = []
    for number in range(count):
        copy = bytearray(content)
        if number % 7 == 0:
            del copy[choose.randrange(8, len(copy)) :]
        elif number % 2:
            copy[choose.randrange(8, len(copy))] ^= 1 << choose.randrange(8)
        else:
            place = choose.randrange(2, len(copy) // 4) * 4
            copy[place : place + 4] = choose.choice(
                [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0"]
            )
        found.append(bytes(copy))
    return found
