"""Ways to damage bytes, for `tools/fuzz_*.py`; each is decided by the random generator alone."""

from collections.abc import Callable

import numpy as np

ODD = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1]  # numbers in headers


def _place(content: bytearray, random: np.random.Generator, head: float = 0.5) -> int:
    """A place in some bytes, every second one in the first 512."""
    return int(random.integers(min(len(content), 512) if random.random() < head else len(content)))


def flip(content: bytearray, random: np.random.Generator) -> None:
    """Some bits are others."""
    for _ in range(random.integers(1, 20)):
        content[_place(content, random)] ^= 1 << int(random.integers(8))


def zero(content: bytearray, random: np.random.Generator) -> None:
    """A block was never written."""
    begin, size = _place(content, random), int(random.integers(1, 4096))
    content[begin : begin + size] = bytes(len(content[begin : begin + size]))


def truncate(content: bytearray, random: np.random.Generator) -> None:
    """The end is missing."""
    del content[_place(content, random, 0.2) :]


def insert(content: bytearray, random: np.random.Generator) -> None:
    """Bytes stand between others."""
    begin = _place(content, random)
    content[begin:begin] = random.bytes(int(random.integers(1, 200)))


def remove(content: bytearray, random: np.random.Generator) -> None:
    """Bytes are missing between others."""
    begin = _place(content, random)
    del content[begin : begin + int(random.integers(1, 2000))]


def duplicate(content: bytearray, random: np.random.Generator) -> None:
    """A block stands there twice."""
    begin, size = _place(content, random), int(random.integers(1, 4096))
    content[begin:begin] = content[begin : begin + size]


def swap(content: bytearray, random: np.random.Generator) -> None:
    """Two blocks of 512 bytes have changed places."""
    a, b = (512 * int(random.integers(max(len(content) // 512, 1))) for _ in range(2))
    content[a : a + 512], content[b : b + 512] = content[b : b + 512], content[a : a + 512]


def number(content: bytearray, random: np.random.Generator) -> None:
    """Numbers in the header, such as sizes, rates and durations, are others."""
    for _ in range(random.integers(1, 6)):
        width, order = int(random.choice([2, 4, 8])), str(random.choice(["little", "big"]))
        begin = _place(content, random, 0.8)
        value = int(ODD[random.integers(len(ODD))]) % 256**width
        content[begin : begin + width] = value.to_bytes(width, order)[: len(content) - begin]


def tail(content: bytearray, random: np.random.Generator) -> None:
    """Something else follows."""
    content += random.bytes(int(random.integers(1, 10_000)))


WAYS: list[Callable[[bytearray, np.random.Generator], None]]
WAYS = [flip, zero, truncate, insert, remove, duplicate, swap, number, number, tail]


def damaged(
    content: bytes,  # of a good file
    random: np.random.Generator,  # decides what happens
) -> bytes:
    """Some bytes, damaged in one to three ways."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 4)):
        if changed:
            WAYS[random.integers(len(WAYS))](changed, random)
    return bytes(changed)
