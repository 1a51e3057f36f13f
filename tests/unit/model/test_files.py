# SPDX-License-Identifier: Apache-2.0
"""Files are written completely or not at all, and never onto an input."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from builders import write

from lancet_onnx.errors import OutputError
from lancet_onnx.model.copying import Rewrite
from lancet_onnx.model.files import check_output, save, staged

NOBODY = 65534
"""A user who may write to no folder of root's, since root may write anywhere."""

FILES = (Rewrite(b"new model"), {"weights.bin": Rewrite(b"new weights")})


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_writes_and_leaves_nothing_else(tmp_path: Path):
    save(b"content", tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx").read_bytes() == b"content"
    assert leftovers(tmp_path) == ["new.onnx"]


def test_a_staged_model_takes_its_place_with_the_mode_of_the_original(tmp_path: Path):
    source = write(tmp_path, b"model", "source.onnx")
    source.chmod(0o640)
    target = write(tmp_path, b"before", "target.onnx")
    with staged(*FILES, target, source) as stage:
        assert stage.model.read_bytes() == b"new model"
        assert (stage.folder / "weights.bin").read_bytes() == b"new weights"
        assert target.read_bytes() == b"before"
        stage.commit()
    assert target.read_bytes() == b"new model"
    assert target.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "weights.bin").read_bytes() == b"new weights"
    assert source.read_bytes() == b"model"
    assert leftovers(tmp_path) == ["source.onnx", "target.onnx", "weights.bin"]


def test_a_staged_model_that_is_not_committed_leaves_nothing(tmp_path: Path):
    source = write(tmp_path, b"model", "source.onnx")
    with pytest.raises(KeyboardInterrupt), staged(*FILES, tmp_path / "target.onnx", source):
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == ["source.onnx"]


@pytest.mark.parametrize("target", ["os.fsync", "pathlib.Path.mkdir", "pathlib.Path.replace"])
def test_a_failed_staging_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
):
    path = write(tmp_path, b"before", "target.onnx")
    with monkeypatch.context() as patched:
        patched.setattr(target, fail(errno.ENOSPC))
        with (
            pytest.raises(OutputError, match=r"no space left.*nothing was changed"),
            staged(*FILES, path, path) as stage,
        ):
            stage.commit()
    assert path.read_bytes() == b"before"
    assert leftovers(tmp_path) == [path.name]


def test_save_replaces_a_link_not_what_it_points_to(tmp_path: Path):
    source = write(tmp_path, b"precious", "source.onnx")
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    save(b"new", link)
    assert source.read_bytes() == b"precious"
    assert not link.is_symlink()


def fail(code: int):
    def raiser(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return raiser


@pytest.mark.parametrize(
    ("target", "code", "reason"),
    [
        ("os.fsync", errno.ENOSPC, "no space left"),
        ("os.fsync", errno.EIO, "Input/output error"),
        ("os.open", errno.EACCES, "Permission denied"),
        ("pathlib.Path.replace", errno.EXDEV, "cross-device"),
    ],
)
def test_a_failed_save_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, code: int, reason: str
):
    path = write(tmp_path, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(target, fail(code))
        with pytest.raises(OutputError, match=f"(?i){reason}.*nothing was changed"):
            save(b"after", path)
    assert path.read_bytes() == b"before"
    assert leftovers(tmp_path) == [path.name]


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The data goes to /dev/full, whose writes really fail."""
    path = write(tmp_path, b"before")
    real = os.open
    with monkeypatch.context() as patched:
        patched.setattr(
            "os.open",
            lambda name, flags, *rest: (real(name, flags, *rest), real("/dev/full", 1))[1],
        )
        with pytest.raises(OutputError, match="no space left"):
            save(b"after", path)
    assert path.read_bytes() == b"before"
    assert leftovers(tmp_path) == [path.name]


def test_a_folder_that_cannot_be_synced_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once the new file is in place it must not be said that nothing was changed."""
    real, calls = os.fsync, []

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(errno.EINVAL, "not for folders")
        real(descriptor)

    monkeypatch.setattr("os.fsync", second_fails)
    save(b"after", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"after"


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_folder_without_permission_is_refused():
    with TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        path = write(folder, b"before")
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(OutputError, match="Permission denied"):
                save(b"after", path)
            with (
                pytest.raises(OutputError, match="Permission denied"),
                staged(*FILES, folder / "m.onnx", path),
            ):
                pass
            assert path.read_bytes() == b"before"
        finally:
            os.seteuid(os.getuid())
            folder.chmod(0o755)
        assert leftovers(folder) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_folder_that_may_not_be_written_to_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "new.onnx", [], force=True)


@pytest.mark.parametrize("length", [245, 255, 300])
def test_a_long_name_is_written_or_refused(tmp_path: Path, length: int):
    path = tmp_path / ("m" * length)
    if length <= 255:
        save(b"data", path)
        assert path.read_bytes() == b"data"
    else:
        with pytest.raises(OutputError, match="File name too long"):
            save(b"data", path)
        assert leftovers(tmp_path) == []


def test_save_below_a_file_is_refused(tmp_path: Path):
    path = write(tmp_path, b"a file", "file")
    with pytest.raises(OutputError, match="cannot be written"):
        save(b"data", path / "below.onnx")


def test_outputs_that_are_refused(tmp_path: Path):
    source = write(tmp_path, b"model", "source.onnx")
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "hard.onnx").hardlink_to(source)
    (tmp_path / "dangling.onnx").symlink_to(tmp_path / "nowhere")
    write(tmp_path, b"old", "old.onnx")
    (tmp_path / "folder").mkdir()

    def refused(name: str, match: str, *, force: bool) -> None:
        with pytest.raises(OutputError, match=match):
            check_output(tmp_path / name, [source], force=force)

    for name in ("source.onnx", "link.onnx", "hard.onnx", "folder/../source.onnx"):
        refused(name, "is the input", force=True)
        refused(name, "is the input", force=False)
    refused("old.onnx", "exists already", force=False)
    refused("dangling.onnx", "exists already", force=False)
    refused("folder", "is a folder", force=True)
    refused("missing/new.onnx", "folder does not exist", force=True)
    check_output(tmp_path / "old.onnx", [source], force=True)
    check_output(tmp_path / "new.onnx", [source], force=False)
    assert (tmp_path / "old.onnx").read_bytes() == b"old"
