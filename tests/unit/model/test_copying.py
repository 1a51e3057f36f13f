# SPDX-License-Identifier: Apache-2.0
"""The copying pass against the plain definition, with pieces of a few bytes."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lancet_onnx.errors import ModelError
from lancet_onnx.model import copying, digests, writing
from lancet_onnx.model.copying import Overwrite, Rewrite, copy
from lancet_onnx.model.digests import compared, data_file_digest, digest_of_pieces
from lancet_onnx.model.source import opened
from lancet_onnx.model.wire import Edit

MANY = settings(max_examples=300, deadline=None)
PIECE = 7


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Let a few bytes be a piece, a write and a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "PIECE", PIECE)
        patch.setattr(digests, "PIECE", PIECE)
        patch.setattr(writing, "AT_ONCE", 3)
        patch.setattr(writing, "_FLUSH", 10)
        patch.setattr(digests, "_STEP", 2)
        yield


def in_pieces(content: bytes) -> str:
    parts = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
    return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()


def replaced(content: bytes, edits: Sequence[Edit]) -> bytes:
    result, done = b"", 0
    for edit in edits:
        result += content[done : edit.start] + edit.content
        done = edit.end
    return result + content[done:]


def copied(source: bytes, *, from_file: bool, pieces: bool, **changes) -> tuple[bytes, str, str]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "source"
        path.write_bytes(source)
        target = os.open(Path(folder) / "target", os.O_RDWR | os.O_CREAT)
        with opened(path) as file:
            whole = file if from_file else source
            before, after = copy(Rewrite(whole, **changes), target, in_pieces=pieces)
        os.close(target)
        return (Path(folder) / "target").read_bytes(), str(before), str(after)


content = st.binary(min_size=1, max_size=60)


@st.composite
def overwrites(draw: st.DrawFn, size: int) -> list[list[Overwrite]]:
    """Elements of one to four bytes, in up to three tensors, that may lie between each other."""
    width = draw(st.integers(1, 4))
    starts = draw(st.sets(st.integers(0, max(size // width - 1, 0)), max_size=8))
    places = sorted(s * width for s in starts if (s + 1) * width <= size)
    owner = [draw(st.integers(0, 2)) for _ in places]
    tensors = []
    for tensor in range(3):
        mine = [p for p, o in zip(places, owner, strict=True) if o == tensor]
        blocks = []
        while mine:
            count = draw(st.integers(1, len(mine)))
            new = np.frombuffer(
                draw(st.binary(min_size=count * width, max_size=count * width)), np.uint8
            )
            blocks.append(Overwrite(np.array(mine[:count]), new.reshape(count, width)))
            mine = mine[count:]
        tensors.append(blocks)
    return tensors


@MANY
@given(st.data(), content, st.booleans(), st.booleans())
def test_overwrites_are_made_wherever_pieces_end(data, source, from_file: bool, pieces: bool):
    tensors = data.draw(overwrites(len(source)))
    expected = bytearray(source)
    for block in (block for blocks in tensors for block in blocks):
        for place, new in zip(block.at, block.content, strict=True):
            expected[place : place + len(new)] = new.tobytes()
    given_blocks = [lambda blocks=blocks: iter(blocks) for blocks in tensors]
    result, before, after = copied(
        source, from_file=from_file, pieces=pieces, overwrites=given_blocks
    )
    digest = in_pieces if pieces else lambda c: hashlib.sha256(c).hexdigest()
    assert result == expected
    assert (before, after) == (digest(source), digest(bytes(expected)))


@st.composite
def resizing(draw: st.DrawFn, size: int) -> list[Edit]:
    bounds = sorted(draw(st.lists(st.integers(0, size), max_size=8)))
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    return [Edit(a, b, draw(st.binary(max_size=10))) for a, b in pairs]


@MANY
@given(st.data(), content, st.booleans())
def test_edits_of_any_size_are_made_wherever_pieces_end(data, source, from_file: bool):
    edits = data.draw(resizing(len(source)))
    result, before, after = copied(source, from_file=from_file, pieces=False, edits=edits)
    assert result == replaced(source, edits)
    assert before == hashlib.sha256(source).hexdigest()
    assert after == hashlib.sha256(result).hexdigest()


@MANY
@given(content)
def test_the_digest_of_a_data_file_is_that_of_its_pieces(source: bytes):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(source)
        assert str(data_file_digest(path)) == in_pieces(source)
    parts = [source[i : i + 5] for i in range(0, len(source), 5)]
    assert str(digest_of_pieces(parts)) == in_pieces(source)


@MANY
@given(content, st.data())
def test_two_data_files_are_compared_piece_by_piece(source: bytes, data: st.DataObject):
    other = bytearray(source)
    for place in data.draw(st.lists(st.integers(0, len(source) - 1), max_size=3)):
        other[place] ^= data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in "ab"]
        for path, content_ in zip(paths, (source, other), strict=True):
            path.write_bytes(content_)
        with opened(paths[0]) as one, opened(paths[1]) as two:
            first, second, changed = compared(one, two)
    assert (str(first), str(second)) == (in_pieces(source), in_pieces(bytes(other)))
    starts = range(0, len(source), PIECE)
    assert changed == {s for s in starts if source[s : s + PIECE] != other[s : s + PIECE]}


def test_a_source_that_is_cut_short_meanwhile_is_an_error(tmp_path: Path):
    path = tmp_path / "source"
    path.write_bytes(bytes(100))
    target = os.open(tmp_path / "t", os.O_RDWR | os.O_CREAT)
    with opened(path) as source:
        os.truncate(path, 50)
        with pytest.raises(ModelError, match="became shorter"):
            copy(Rewrite(source), target, in_pieces=True)
    os.close(target)


def test_blocks_are_shared_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A clone is a copy at once; afterwards only what differs is written."""
    path = tmp_path / "source"
    path.write_bytes(bytes(range(100)))
    written = []
    real = os.pwrite

    def clone(target: int, _request: int, descriptor: int) -> None:
        real(target, os.pread(descriptor, 1000, 0), 0)

    def noted(target: int, content: bytes, at: int) -> int:
        written.append((at, bytes(content)))
        return real(target, content, at)

    monkeypatch.setattr("fcntl.ioctl", clone)
    monkeypatch.setattr(os, "pwrite", noted)
    monkeypatch.setattr(writing, "AT_ONCE", 100)
    monkeypatch.setattr(copying, "PAGESIZE", 2)
    edit = Overwrite(np.array([50]), np.array([[1, 2]], np.uint8))
    target = os.open(tmp_path / "t", os.O_RDWR | os.O_CREAT)
    with opened(path) as source:
        copy(Rewrite(source, [lambda: iter([edit])]), target, in_pieces=True)
    os.close(target)
    expected = bytearray(range(100))
    expected[50:52] = b"\1\2"
    assert (tmp_path / "t").read_bytes() == expected
    assert written == [(at, bytes(expected[at : at + 2])) for at in (49, 51)]
