"""Damage in the write-ahead log of an SQLite file, which SQLite itself passes over in silence.

SQLite takes the log up to the first frame that is not whole, as the tail of a log is torn where a
write was cut short. So one flipped bit in the middle would undo all that was acknowledged after it.
Each commit is synced before the next one is written. So a power cut tears, or leaves holes in, the
last commit alone, and where something follows a commit from there on, it is damage.

Not told from a cut is damage in the last commit, and the flip of the one bit that makes a frame the
end of the commit before it: its size of the file in pages becomes 0, if that was a power of two.
(Format: sqlite.org/fileformat2.html, section 4, "The Write-Ahead Log".)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Wal", "cut", "read_wal", "sums_of", "wal_of"]

Words: TypeAlias = NDArray[np.uint32]

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
SUMMED_BYTES = 8
"""Of the header of a frame, what its sums are over besides the page."""
MAGIC = 0x377F0682
"""Of a log whose sums take words lowest byte first; one more: highest byte first."""
FORMAT = 3_007_000
FRAMES_AT_ONCE = 256


class Wal(NamedTuple):
    """What a write-ahead log is found to be."""

    end: int
    """Bytes of it that are whole; SQLite looks at no others."""
    pages: frozenset[int]
    """Numbers of the pages in them."""
    damaged: bool
    """Whether a commit that is not the last is not whole."""


class _Frames(NamedTuple):
    """Some frames that follow each other."""

    pages: Words
    """Number of the page each holds, (n,)."""
    commits: Words
    """Pages of the file after the commit that it ends; 0 where it ends none, (n,)."""
    salts: Words
    """(n, 2); those of the log's header, or the frame is of before the log was begun anew."""
    sums: Words
    """Sums over all of the log up to its end, as they are stored, (n, 2)."""
    own_sums: Words
    """Sums over it alone, computed, (n, 2)."""


def wal_of(path: Path) -> Path:
    """Where the write-ahead log of a file lies."""
    return path.with_name(f"{path.name}-wal")


def read_wal(path: Path, page_bytes: int) -> Wal:
    """Read the log of a file to which nobody writes meanwhile, or only what is added to the log.

    Args:
        path: the file, not the log.
        page_bytes: size of its pages.
    """
    try:
        with wal_of(path).open("rb") as file:
            return _read(file, page_bytes)
    except FileNotFoundError:
        return Wal(0, frozenset(), damaged=False)


def cut(path: Path, wal: Wal) -> None:
    """Take away what SQLite does not look at, durably, with nobody else at the file."""
    with wal_of(path).open("r+b") as file:
        file.truncate(wal.end)
        os.fsync(file.fileno())


def _read(file: BinaryIO, page_bytes: int) -> Wal:
    raw = file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0")
    header = np.frombuffer(raw, ">u4").astype(np.uint32)
    magic, version, size = header[:3].tolist()
    order = ">u4" if magic & 1 else "<u4"
    own = sums_of(np.frombuffer(raw[:-8], order)[None])[0]
    if (magic & ~1, version, size % 2**16) != (MAGIC, FORMAT, page_bytes % 2**16) or (
        own != header[6:]
    ).any():
        # SQLite takes this for no log, whatever is in it.
        commits = sum(int((f.commits > 0).sum()) for f in _frames(file, page_bytes, order))
        return Wal(0, frozenset(), commits > 1)
    return _whole(_frames(file, page_bytes, order), header[4:6], header[6:], page_bytes)


def _whole(frames: Iterator[_Frames], salts: Words, before: Words, page_bytes: int) -> Wal:
    count, pages = 0, set[int]()
    left: Iterator[_Marks] = iter(())
    for some in frames:
        marks = _Marks.of(some, salts)
        preceding = np.concatenate((before[None], some.sums[:-1]))
        sums = _carried(preceding, SUMMED_BYTES + page_bytes) + some.own_sums
        fits = (some.salts == salts).all(axis=1) & (some.pages > 0)
        fits &= (sums == some.sums).all(axis=1)
        good = len(fits) if fits.all() else int(np.argmin(fits))
        count += good
        pages.update(some.pages[:good].tolist())
        before = some.sums[-1]
        if good < len(fits):
            rest = _Marks(marks.ours[good:], marks.commits[good:])
            left = chain([rest], (_Marks.of(some, salts) for some in frames))
            break
    return Wal(_end(count, page_bytes), frozenset(pages), _goes_on(left))


class _Marks(NamedTuple):
    """What the headers of frames say."""

    ours: NDArray[np.bool_]
    """Which are of this log, and not of before it was begun anew, (n,)."""
    commits: NDArray[np.bool_]
    """Which of them end a commit, (n,)."""

    @classmethod
    def of(cls, frames: _Frames, salts: Words) -> _Marks:
        # Those of before have neither salt; of one of these a bit may have flipped.
        ours = (frames.salts == salts).any(axis=1)
        return cls(ours, ours & (frames.commits > 0))


def _goes_on(left: Iterator[_Marks]) -> bool:
    """Whether anything follows the first commit, from the first frame on that is not whole."""
    for some in left:
        if some.commits.any():
            first = int(np.argmax(some.commits))
            return bool(some.ours[first + 1 :].any()) or any(more.ours.any() for more in left)
    return False


def _end(frames: int, page_bytes: int) -> int:
    return HEADER_BYTES + frames * (FRAME_HEADER_BYTES + page_bytes)


def _frames(file: BinaryIO, page_bytes: int, order: str) -> Iterator[_Frames]:
    """The frames that follow the header, as far as they are there in full."""
    size = FRAME_HEADER_BYTES + page_bytes
    while n := len(data := file.read(size * FRAMES_AT_ONCE)) // size:
        rows = np.frombuffer(data, np.uint8, n * size).reshape(n, size)
        head = np.ascontiguousarray(rows[:, :FRAME_HEADER_BYTES]).view(">u4").astype(np.uint32)
        summed = np.hstack((rows[:, :SUMMED_BYTES], rows[:, FRAME_HEADER_BYTES:])).view(order)
        yield _Frames(head[:, 0], head[:, 1], head[:, 2:4], head[:, 4:], sums_of(summed))


# The sums are (s, t), and for each pair (x, y) of words s += x + t; t += y + s, modulo 2³². So a
# pair adds (x, x + y), and takes what was before to M (s, t), M = [[1, 1], [1, 2]]. The powers of M
# are made of Fibonacci numbers: Mᵏ = [[F(2k−1), F(2k)], [F(2k), F(2k+1)]].


def sums_of(words: Words) -> Words:
    """The sums over rows of words alone, (n, words) to (n, 2); checksums of pages are such too."""
    f = _fibonacci(words.shape[1] + 1)
    # Of the last pair k is 0, of the first it is the number of pairs less one.
    here, next_one, last = f[1:-1:2][::-1], f[:-2:2][::-1], f[2::2][::-1]
    x, y = words[:, ::2].astype(np.uint32), words[:, 1::2].astype(np.uint32)
    return np.stack((x @ here + y @ next_one, x @ last + y @ here), axis=1)


def _carried(sums: Words, n_bytes: int) -> Words:
    """What sums before a row of so many bytes add to those after it, (n, 2) to (n, 2)."""
    two_k = n_bytes // 4
    f = _fibonacci(two_k + 1)
    power = np.array([[f[two_k - 1], f[two_k]], [f[two_k], f[two_k + 1]]], np.uint32)
    return sums @ power


@cache
def _fibonacci(n: int) -> Words:
    """F(0) to F(n) modulo 2³²."""
    numbers = [0, 1]
    while len(numbers) <= n:
        numbers.append((numbers[-1] + numbers[-2]) % 2**32)
    return np.array(numbers, np.uint32)
