"""`check_pages`: whether an LMDB file can be read at all, before LMDB itself follows what stands in it.

LMDB trusts its file: a changed byte in a page's head makes it read beyond the end, which kills the process (SIGBUS).
So the tree of pages is walked first: every page that is pointed to is in the file, is what it should be, and points
within itself. Values are not looked at; the store has check sums for them.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np

BRANCH, LEAF = 1, 2  # flags of a page
BIG, SUBTREE = 1, 2  # flags of a node: its value lies on pages of its own, or is a tree
HEAD, NODE = 16, 8  # bytes of a page's head and of a node's
NOTHING = 0xFFFFFFFFFFFFFFFF


def check_pages(file: Path, transaction: int) -> bool:
    """Walk the pages of an LMDB file as one transaction sees them, which must be open: its pages are then left alone.

    Args:
        file: `data.mdb`.
        transaction: its id.

    Returns:
        Whether the file still says where this transaction's pages are: not after two others have been committed.

    Raises:
        ValueError: the file is damaged; the message says where, not which file.
    """
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = struct.unpack_from("<I", data, HEAD + 24)[0]  # stands in the head of the first page
        if size < 512 or size > 1 << 16 or size & (size - 1) or len(data) < 2 * size:
            raise ValueError("its first page is not one")
        for at in (0, size):
            free, main, last, written = _roots(data, at)
            if written == transaction:
                walk = _Walk(data, size, last)
                walk.tree(free)
                walk.tree(main)
                return True
    return False


def _roots(data: mmap.mmap, at: int) -> tuple[int, int, int, int]:
    """(root of the free pages, root of the rest, last page, transaction) of one of the two first pages."""
    trees = at + HEAD + 24  # after magic, version, address and size of the map
    last, transaction = struct.unpack_from("<QQ", data, trees + 96)
    free, main = (struct.unpack_from("<Q", data, trees + tree + 40)[0] for tree in (0, 48))
    return free, main, last, transaction


class _Walk:
    def __init__(self, data: mmap.mmap, size: int, last: int) -> None:
        self.data, self.size = data, size
        self.pages = min(last + 1, len(data) // size)
        self.seen: set[int] = set()

    def tree(self, root: int) -> None:
        waiting = [] if root == NOTHING else [root]
        while waiting:
            waiting += self.page(waiting.pop())

    def page(self, number: int) -> list[int]:
        """The pages that a page leads to."""
        if not 2 <= number < self.pages or number in self.seen:
            raise ValueError(f"page {number} is pointed to, and is not there, or twice")
        self.seen.add(number)
        content = self.data[number * self.size : (number + 1) * self.size]
        page = np.frombuffer(content, np.uint8)
        own, _, flags, low, high = struct.unpack_from("<QHHHH", content)
        if own != number or flags not in (BRANCH, LEAF) or not HEAD <= low <= high <= self.size or low % 2:
            raise ValueError(f"page {number} is not what it should be")
        starts = page[HEAD:low].view("<u2").astype(np.int64)
        if len(starts) and (starts.min() < high or starts.max() > self.size - NODE):
            raise ValueError(f"page {number} points out of itself")
        heads = np.stack([page[starts + at] for at in range(NODE)], axis=1).view("<u2").astype(np.int64)  # (N, 4)
        low_half, high_half, kinds, keys = heads.T
        numbers = low_half | high_half << 16
        ends = starts + NODE + keys
        if flags == BRANCH:
            if (ends > self.size).any() or not len(starts):
                raise ValueError(f"page {number} points out of itself")
            return (numbers | kinds << 32).tolist()
        big = (kinds & BIG) > 0
        if (ends + np.where(big, 8, numbers) > self.size).any() or (kinds & ~(BIG | SUBTREE)).any():
            raise ValueError(f"page {number} points out of itself")
        for start, length in zip(ends[big].tolist(), numbers[big].tolist(), strict=True):
            first = struct.unpack_from("<Q", content, start)[0]
            if first < 2 or first + (HEAD + length + self.size - 1) // self.size > self.pages:
                raise ValueError(f"page {number} points to values that are not there")
        roots = []
        for start in ends[(kinds & SUBTREE) > 0].tolist():
            if start + 48 > self.size:
                raise ValueError(f"page {number} points out of itself")
            roots.append(struct.unpack_from("<Q", content, start + 40)[0])
        return [root for root in roots if root != NOTHING]
