# SPDX-License-Identifier: Apache-2.0
"""Writing a file from its start to its end, a large one past the page cache and beside the caller.

A copy of gigabytes in the page cache costs a copy in memory, pushes out what others need there, and
must go to the disk all the same before it counts as written. So whole pages go to the disk
directly (O_DIRECT), two pieces at a time, until the first part that does not begin at a page; from
there on, and where the file system cannot do it, everything goes through the cache.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import numpy as np

DIRECT_FROM = 256 << 20
"""Bytes; smaller files stay in the page cache, for whoever reads them next."""

_THREADS = 2
AT_ONCE = 128 << 10
"""Bytes of one write: larger ones make the kernel look for larger stretches of free memory."""

_FLUSH = 64 << 20
"""Bytes in the cache after which the kernel is told to start writing them to the disk."""


class Writer:
    """Writes parts one after the other; a context that ends its threads."""

    def __init__(self, target: int, size: int) -> None:
        """Prepare the empty file behind the descriptor `target` for about `size` bytes.

        Raises:
            OSError: there is no room for them.
        """
        _reserve(target, size)
        self._target = target
        self._direct = _past_the_cache(target) if size >= DIRECT_FROM else None
        self._pool = ThreadPoolExecutor(_THREADS)
        self._jobs: deque[Future[None]] = deque()
        self._flushed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._direct is not None:
            os.close(self._direct)

    def write(self, part: memoryview, at: int) -> None:
        """Write a part at its place; it must stay as it is until `wait` says that it is written.

        Raises:
            OSError: this part or one before it cannot be written.
        """
        if self._direct is not None:
            pages = _whole_pages(part, at)
            if pages:
                self._jobs.append(self._pool.submit(self._write_pages, part[:pages], at))
            part, at = part[pages:], at + pages
        if part:
            self.wait(0)
            self._close_direct()
            _write(self._target, part, at)
            self._start_flush(at + len(part))

    def wait(self, most: int) -> None:
        """Return once at most that many parts are still being written.

        Raises:
            OSError: one of them cannot be written.
        """
        while len(self._jobs) > most:
            self._jobs.popleft().result()

    def finish(self, size: int) -> None:
        """Return once all is written (not yet on the disk), and the file has this size.

        Raises:
            OSError: a part cannot be written.
        """
        self.wait(0)
        os.ftruncate(self._target, size)

    def _write_pages(self, part: memoryview, at: int) -> None:
        assert self._direct is not None  # noqa: S101 - closed only when no job is left
        while part:
            try:
                count = os.pwrite(self._direct, part, at)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                _write(self._target, part, at)  # this file system wants more than whole pages
                return
            part, at = part[count:], at + count

    def _close_direct(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _start_flush(self, end: int) -> None:
        """Let the disk begin; whoever syncs the file waits for it, and hears of errors."""
        if sys.platform == "linux" and end - self._flushed >= _FLUSH:
            os.posix_fadvise(
                self._target, self._flushed, end - self._flushed, os.POSIX_FADV_DONTNEED
            )
            self._flushed = end


def page_buffer(size: int) -> memoryview:
    """Return memory that begins at a page, as whole pages of a file must to go past the cache."""
    return memoryview(mmap.mmap(-1, max(size, 1)))[:size]


def _reserve(target: int, size: int) -> None:
    """Let a disk that is too small say so now, and lay the file out in large stretches."""
    if sys.platform != "linux" or not size:
        return
    try:
        os.posix_fallocate(target, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without it
            raise


def _past_the_cache(target: int) -> int | None:
    """Return a second descriptor of the same file for direct writes, None where that cannot be."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{target}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    return None


def _whole_pages(part: memoryview, at: int) -> int:
    """Return how many bytes from the part's start are whole pages, in memory and in the file."""
    address = np.frombuffer(part, np.uint8).ctypes.data
    if at % mmap.PAGESIZE or address % mmap.PAGESIZE:
        return 0
    return len(part) - len(part) % mmap.PAGESIZE


def _write(target: int, part: memoryview, at: int) -> None:
    while part:
        count = os.pwrite(target, part[:AT_ONCE], at)
        part, at = part[count:], at + count
