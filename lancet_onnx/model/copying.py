# SPDX-License-Identifier: Apache-2.0
"""One pass that copies a file with a few of its bytes replaced, and hashes it before and after.

Memory stays at a few buffers whatever the size. Hashing goes on beside reading and writing, in
threads (it releases Python's lock), and what is not replaced is hashed once for both digests.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.model.digests import PIECE, THREADS
from lancet_onnx.model.source import FileBytes, Source
from lancet_onnx.model.wire import Edit
from lancet_onnx.model.writing import Writer, page_buffer
from lancet_onnx.types import Digest

_BUFFERS = THREADS + 6
_FICLONE = 0x40049409


class Overwrite(NamedTuple):
    """Elements that keep their size: where each begins in the file, and its bytes, (n, width)."""

    at: NDArray[np.int64]
    content: NDArray[np.uint8]


Overwrites = Callable[[], Iterator[Overwrite]]
"""Gives replacements in the order of the file, a block at a time, each time from the start."""


@dataclass(frozen=True, eq=False)
class Rewrite:
    """What becomes of one file.

    Attributes:
        source: the file as it is.
        overwrites: replacements of the same size.
        edits: replacements of any size, few, in the file's order (see `wire.with_lengths`).
    """

    source: Source
    overwrites: Sequence[Overwrites] = ()
    edits: Sequence[Edit] = ()


def copy(rewrite: Rewrite, target: int, *, in_pieces: bool) -> tuple[Digest, Digest]:
    """Write the rewritten file to the descriptor `target`; return the digests before and after.

    `in_pieces` says which kind of digest (see `digests`); then nothing may change its size. Where
    the file system can share blocks between files, only what is replaced takes space.

    Raises:
        OSError: the target cannot be written.
        ModelError: the source cannot be read.
    """
    source = rewrite.source
    cloned = isinstance(source, FileBytes) and not rewrite.edits and _clone(source, target)
    cursors = [_Cursor(blocks()) for blocks in rewrite.overwrites]
    splicer = _Splicer(rewrite.edits)
    spares = _ring(min(PIECE, len(source)))
    written = 0
    with ExitStack() as stack:
        writer = stack.enter_context(Writer(target, 0 if cloned else len(source)))
        digests = (
            stack.enter_context(_Piecewise()) if in_pieces else stack.enter_context(_Running())
        )
        for start, chunk in _chunks(source):
            for workers in (digests, writer):
                workers.wait(_BUFFERS - 2)
            replaced = _overwritten(start, chunk, cursors, spares)
            parts = splicer.parts(start, replaced, last=start + len(chunk) == len(source))
            same = len(parts) == 1 and parts[0] is chunk
            digests.update(chunk, None if same else parts)
            for part in parts:
                for at, pages in _changed_pages(chunk, part) if cloned else [(0, part)]:
                    writer.write(pages, written + at)
                written += len(part)
        writer.finish(written)
        return digests.results()


def _clone(source: FileBytes, target: int) -> bool:
    """Let the target share the source's blocks (reflink); False where that cannot be."""
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source.descriptor)
        return True
    return False


def _changed_pages(before: memoryview, after: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the pages that differ, and where each begins: the others stay shared."""
    if after is not before:
        one, other = (np.frombuffer(side, np.uint8) for side in (before, after))
        for at in PAGESIZE * np.unique(np.flatnonzero(one != other) // PAGESIZE):
            yield int(at), after[at : at + PAGESIZE]


def _chunks(source: Source) -> Iterator[tuple[int, memoryview]]:
    """Yield the source in pieces and where each begins; a buffer comes back after a few pieces."""
    if isinstance(source, bytes):
        whole = memoryview(source)
        for start in range(0, len(whole), PIECE):
            yield start, whole[start : start + PIECE]
        return
    buffers = _ring(min(PIECE, len(source)))
    for start in range(0, len(source), PIECE):
        chunk = next(buffers)[: min(PIECE, len(source) - start)]
        source.read_into(start, chunk)
        yield start, chunk


def _ring(size: int) -> Iterator[memoryview]:
    """Yield buffers of a size; each comes back when all others have been yielded."""
    buffers: list[memoryview] = []
    for number in itertools.count():
        if number < _BUFFERS:
            buffers.append(page_buffer(size))
        yield buffers[number % _BUFFERS]


class _Cursor:
    """Blocks of overwrites, taken from the front as the copy comes to them."""

    def __init__(self, blocks: Iterator[Overwrite]) -> None:
        self._blocks = blocks
        self._places = np.empty(0, np.int64)
        self._bytes = np.empty(0, np.uint8)
        self._more = True
        self._fill()

    def _fill(self) -> None:
        while self._more and not len(self._places):
            block = next(self._blocks, None)
            if block is None:
                self._more = False
            else:
                width = block.content.shape[1]
                self._places = (block.at[:, None] + np.arange(width)).reshape(-1)
                self._bytes = block.content.reshape(-1)

    def take(self, end: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Yield places below `end`, byte by byte, and what goes there."""
        while len(self._places) and self._places[0] < end:
            count = int(np.searchsorted(self._places, end))
            yield self._places[:count], self._bytes[:count]
            self._places, self._bytes = self._places[count:], self._bytes[count:]
            self._fill()


def _overwritten(
    start: int, chunk: memoryview, cursors: Sequence[_Cursor], spares: Iterator[memoryview]
) -> memoryview:
    """Return the chunk itself, or a copy of it with what the cursors hold for it."""
    changed = chunk
    for cursor in cursors:
        for places, content in cursor.take(start + len(chunk)):
            if changed is chunk:
                changed = next(spares)[: len(chunk)]
                changed[:] = chunk
            np.frombuffer(changed, np.uint8)[places - start] = content
    return changed


class _Splicer:
    """Edits of any size, made as the copy comes to them."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits
        self._next = 0
        self._done = 0

    def parts(self, start: int, chunk: memoryview, *, last: bool) -> list[memoryview]:
        """Return what stands for the chunk that begins at `start`; `last` takes what is left."""
        end = start + len(chunk)
        place, parts = max(start, self._done), []
        while self._next < len(self._edits):
            edit = self._edits[self._next]
            if edit.start >= end and not last:
                break
            parts += [chunk[place - start : edit.start - start], memoryview(edit.content)]
            place = edit.end
            self._next += 1
        self._done = place
        if place == start:
            return [*parts, chunk] if parts else [chunk]
        return [*parts, chunk[max(place - start, 0) :]]


class _Running:
    """Two digests of a whole file, each in a thread; the second forks off at the first change."""

    def __init__(self) -> None:
        self._before = hashlib.sha256()
        self._after: Future[hashlib._Hash] | None = None
        self._first = ThreadPoolExecutor(1)
        self._second = ThreadPoolExecutor(1)
        self._jobs: deque[list[Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._first, self._second):
            pool.shutdown(cancel_futures=True)

    def update(self, chunk: memoryview, changed: Sequence[memoryview] | None) -> None:
        """Go on with a chunk and, where it differs, with what it has become."""
        if changed is not None and self._after is None:
            self._after = self._first.submit(self._before.copy)
        jobs = [self._first.submit(self._before.update, chunk)]
        if self._after is not None:
            parts = [chunk] if changed is None else changed
            jobs += [self._second.submit(_go_on, self._after, part) for part in parts]
        self._jobs.append(jobs)

    def wait(self, most: int) -> None:
        """Return once at most that many chunks are still worked on."""
        while len(self._jobs) > most:
            for job in self._jobs.popleft():
                job.result()

    def results(self) -> tuple[Digest, Digest]:
        """Return both digests once all is done."""
        self.wait(0)
        before = Digest(self._before.hexdigest())
        if self._after is None:
            return before, before
        return before, Digest(self._after.result().hexdigest())


def _go_on(fork: Future[hashlib._Hash], part: memoryview) -> None:
    fork.result().update(part)


class _Piecewise:
    """Two digests of digests of pieces, on all cores; pieces that stay are hashed once."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS)
        self._jobs: deque[tuple[Future[bytes], Future[bytes]]] = deque()
        self._done: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def update(self, chunk: memoryview, changed: Sequence[memoryview] | None) -> None:
        """Go on with a chunk and, where it differs, with what it has become."""
        before = self._pool.submit(_sha256, [chunk])
        after = before if changed is None else self._pool.submit(_sha256, changed)
        self._jobs.append((before, after))

    def wait(self, most: int) -> None:
        """Return once at most that many chunks are still worked on."""
        while len(self._jobs) > most:
            before, after = self._jobs.popleft()
            self._done.append((before.result(), after.result()))

    def results(self) -> tuple[Digest, Digest]:
        """Return both digests once all is done."""
        self.wait(0)
        before, after = (b"".join(both[side] for both in self._done) for side in (0, 1))
        return Digest.of(before), Digest.of(after)


def _sha256(parts: Sequence[memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
