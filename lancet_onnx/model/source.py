# SPDX-License-Identifier: Apache-2.0
"""A file's bytes on demand: what is asked for is read, and nothing else stays in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import overload

from lancet_onnx.errors import ModelError

_WINDOW = 1 << 16


class FileBytes:
    """An open file that is indexed and sliced as `bytes` are.

    Not a memory map: a file that somebody cuts short meanwhile is an error here, and would end the
    process there.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        """Take the size that the file has now; a later change of it is refused when it shows."""
        self.descriptor = descriptor
        self._path = path
        self._size = os.fstat(descriptor).st_size
        self._held: tuple[int, bytes] = (0, b"")  # one object, so that threads may share this

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        first, window = self._held
        if isinstance(at, slice):
            start, stop, _ = at.indices(self._size)
            if first <= start and stop <= first + len(window):
                return window[start - first : stop - first]
            if stop - start > _WINDOW:
                return self._read(start, stop)
            return self._look(start)[: max(stop - start, 0)]
        if first <= at < first + len(window):
            return window[at - first]
        return self._look(at)[0]

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `start` on.

        Raises:
            ModelError: the file ends before that, or cannot be read.
        """
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self.descriptor, [target[done:]], start + done)
            except OSError as error:
                raise ModelError(f"{self._path}: cannot be read ({error.strerror})") from error
            if count == 0:
                raise ModelError(f"{self._path}: became shorter while it was being read")
            done += count

    def _read(self, start: int, stop: int) -> bytes:
        try:
            content = os.pread(self.descriptor, stop - start, start)
        except OSError as error:
            raise ModelError(f"{self._path}: cannot be read ({error.strerror})") from error
        if len(content) < stop - start:  # the system reads two gigabytes at once, not more
            rest = bytearray(stop - start)
            rest[: len(content)] = content
            self.read_into(start + len(content), memoryview(rest)[len(content) :])
            return bytes(rest)
        return content

    def _look(self, start: int) -> bytes:
        """Return a window of the file from `start` on, kept for what is asked next."""
        window = self._read(start, max(min(start + _WINDOW, self._size), start))
        self._held = (start, window)
        return window


Source = bytes | FileBytes
"""A file's content, in memory or on demand."""


@contextmanager
def opened(path: Path) -> Iterator[FileBytes]:
    """Open a regular file for reading on demand.

    Raises:
        ModelError: missing, no regular file, or not readable.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file; give the path of an .onnx file")
    if not path.is_file():
        raise ModelError(f"{path}: not a regular file; give the path of an .onnx file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        yield FileBytes(descriptor, path)
    finally:
        with suppress(OSError):  # it was only read
            os.close(descriptor)
