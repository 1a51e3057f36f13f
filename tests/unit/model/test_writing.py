# SPDX-License-Identifier: Apache-2.0
"""What is written past the page cache is what was asked for, and failures are heard."""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lancet_onnx.model import writing
from lancet_onnx.model.writing import Writer, page_buffer

PAGE = mmap.PAGESIZE
PIECE = 3 * PAGE


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "t", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def always_direct(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "DIRECT_FROM", 0)


def parts(sizes: list[int], rng: np.random.Generator) -> list[memoryview]:
    made = []
    for size in sizes:
        buffer = page_buffer(size)
        buffer[:] = rng.bytes(size)
        made.append(buffer)
    return made


def written(target: int, content: list[memoryview], size: int) -> bytes:
    at = 0
    with Writer(target, size) as writer:
        for part in content:
            writer.write(part, at)
            writer.wait(3)
            at += len(part)
        writer.finish(at)
    return os.pread(target, at + 1, 0)


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [1],
        [PIECE] * 9,
        [PIECE] * 5 + [17],
        [PIECE, 17, PIECE, PIECE],
        [17, PIECE],
        [PAGE, 0, 5],
    ],
)
def test_parts_of_every_size_follow_each_other(
    target: int, rng: np.random.Generator, sizes: list[int]
):
    content = parts(sizes, rng)
    expected = b"".join(map(bytes, content))
    for promised in (0, len(expected), len(expected) + 5 * PAGE):
        os.truncate(target, 0)
        assert written(target, content, promised) == expected


def test_whole_pages_go_past_the_cache_and_only_they(
    target: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    real = os.pwrite

    def noted(descriptor: int, content: memoryview, at: int) -> int:
        seen.append((descriptor == target, at, len(content)))
        return real(descriptor, content, at)

    monkeypatch.setattr(os, "pwrite", noted)
    content = parts([PIECE, PIECE + 7, PIECE], rng)
    assert written(target, content, 1) == b"".join(map(bytes, content))
    if all(through for through, *_ in seen):
        pytest.skip("this file system writes through the cache only")
    direct = {(at, size) for through, at, size in seen if not through}
    assert direct == {(0, PIECE), (PIECE, PIECE)}
    assert [(at, size) for through, at, size in seen if through] == [
        (2 * PIECE, 7),
        (2 * PIECE + 7, PIECE),
    ]


def test_bytes_that_begin_at_no_page_of_memory_go_through_the_cache(
    target: int, rng: np.random.Generator
):
    whole = parts([PIECE + 1], rng)[0]
    assert written(target, [whole[1:]], PIECE) == bytes(whole[1:])


def failing(number: int, target: int) -> Callable[[int, memoryview, int], int]:
    """A pwrite whose direct form is refused at the second piece; half of the first is written."""
    real = os.pwrite

    def pwrite(descriptor: int, content: memoryview, at: int) -> int:
        if descriptor != target:
            if at >= PIECE:
                raise OSError(number, os.strerror(number))
            content = content[: max(len(content) // 2, 1)]
        return real(descriptor, content, at)

    return pwrite


@pytest.mark.parametrize("sizes", [[PIECE] * 6, [PIECE] * 3 + [5]])
def test_a_file_system_that_wants_more_than_pages_gets_the_rest_through_the_cache(
    target: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
):
    monkeypatch.setattr(os, "pwrite", failing(errno.EINVAL, target))
    content = parts(sizes, rng)
    assert written(target, content, PIECE) == b"".join(map(bytes, content))


def test_an_error_of_a_thread_is_raised(
    target: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "pwrite", failing(errno.EIO, target))
    if writing._past_the_cache(target) is None:
        pytest.skip("this file system writes through the cache only")
    with pytest.raises(OSError, match="Input/output"):
        written(target, parts([PIECE] * 6, rng), PIECE)


def test_where_there_is_no_direct_way_the_cache_does(
    target: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    real = os.open

    def refuse(path: str, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no such way")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    content = parts([PIECE] * 3, rng)
    assert written(target, content, PIECE) == b"".join(map(bytes, content))


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, True), (errno.EOPNOTSUPP, False)])
def test_a_disk_that_is_too_small_says_so_first(
    target: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    raised: bool,
):
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    content = parts([PIECE], rng)
    if raised:
        with pytest.raises(OSError, match="No space"):
            written(target, content, PIECE)
        assert os.fstat(target).st_size == 0
    else:
        assert written(target, content, PIECE) == bytes(content[0])
