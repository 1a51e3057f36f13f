# SPDX-License-Identifier: Apache-2.0
"""Digests of files and models.

An .onnx file goes by its SHA-256, as all other tools have it. Data files are hashed in pieces whose
digests are hashed again: so all cores work on them, and a change of a few numbers needs only the
pieces that it touches to be hashed anew.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lancet_onnx.errors import ModelError
from lancet_onnx.model.source import FileBytes, opened
from lancet_onnx.types import Digest

PIECE = 4 << 20
"""Bytes of a piece; part of the definition of a data file's digest."""

_STEP = 256 << 10
"""Bytes read at once: little enough to stay in the processor's cache while they are used."""

THREADS = min(os.cpu_count() or 1, 8)

T = TypeVar("T")
R = TypeVar("R")


def model_digest(onnx: Digest, data: Mapping[str, Digest]) -> Digest:
    """Return the digest of a model from those of its files, the data files' by location.

    Without external data it is the .onnx file's own.
    """
    if not data:
        return onnx
    lines = [str(onnx), *(f"{digest} {location}" for location, digest in sorted(data.items()))]
    return Digest.of("\n".join(lines).encode())


def file_digest(path: Path) -> Digest:
    """Return the SHA-256 of a file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return Digest(hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def descriptor_digest(descriptor: int) -> Digest:
    """Return the SHA-256 of an open file."""
    digest, at = hashlib.sha256(), 0
    while content := os.pread(descriptor, _STEP, at):
        digest.update(content)
        at += len(content)
    return Digest(digest.hexdigest())


def data_file_digest(path: Path) -> Digest:
    """Return the digest of a data file: the SHA-256 of the SHA-256s of its pieces.

    Raises:
        ModelError: it cannot be read.
    """
    with opened(path) as source:
        starts = range(0, len(source), PIECE)
        return _joined(_in_threads(lambda start: _sha256(source, start), starts))


def compared(one: FileBytes, other: FileBytes) -> tuple[Digest, Digest, frozenset[int]]:
    """Return the digests of two data files of one size, and where pieces of them differ.

    Pieces that are the same are hashed once.

    Raises:
        ModelError: a file cannot be read.
    """

    def compare(start: int) -> tuple[bytes, bytes]:
        first, second = hashlib.sha256(), None
        for part in _steps(start, len(one)):
            left, right = one[part], other[part]
            if second is None and left != right:
                second = first.copy()
            first.update(left)
            if second is not None:
                second.update(right)
        return first.digest(), (second or first).digest()

    starts = range(0, len(one), PIECE)
    pairs = list(_in_threads(compare, starts))
    changed = frozenset(s for s, (a, b) in zip(starts, pairs, strict=True) if a != b)
    return _joined(a for a, _ in pairs), _joined(b for _, b in pairs), changed


def digest_of_pieces(parts: Iterable[bytes]) -> Digest:
    """Return the digest of data that comes in parts of any size, as of a file that holds it."""

    def pieces() -> Iterator[bytes]:
        held = bytearray()
        for part in parts:
            if not held and len(part) == PIECE:
                yield part
                continue
            held += part
            while len(held) >= PIECE:
                yield bytes(held[:PIECE])
                del held[:PIECE]
        if held:
            yield bytes(held)

    return _joined(_in_threads(lambda piece: hashlib.sha256(piece).digest(), pieces()))


def _sha256(source: FileBytes, start: int) -> bytes:
    digest = hashlib.sha256()
    for part in _steps(start, len(source)):
        digest.update(source[part])
    return digest.digest()


def _steps(start: int, size: int) -> Iterator[slice]:
    """Yield the parts in which the piece at `start` is read."""
    end = min(start + PIECE, size)
    for at in range(start, end, _STEP):
        yield slice(at, min(at + _STEP, end))


def _joined(digests: Iterable[bytes]) -> Digest:
    return Digest.of(b"".join(digests))


def _in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `work` makes of each item, in order, with few of them in memory."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
