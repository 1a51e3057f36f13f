# SPDX-License-Identifier: Apache-2.0
"""Images and labels from folders, npz and CSV, and what is said of those that do not fit."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lancet_onnx.errors import DataError
from lancet_onnx.samples import read_samples
from lancet_onnx.samples.reading import picture

SHAPE = (4, 6, 3)


def put(path: Path, value: int, size: tuple[int, int] = (4, 6), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), (value,) * len(mode) if len(mode) > 1 else value).save(path)
    return path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def refuse(match: str, path: Path, **options: object) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_samples(path, SHAPE, **options)
    assert str(path) in str(caught.value) or path.is_dir()


def test_class_folders(tmp_path: Path):
    put(tmp_path / "zebra" / "1.png", 30)
    put(tmp_path / "ant" / "b.png", 20)
    put(tmp_path / "ant" / "a.png", 10)
    put(tmp_path / "cat" / "deep" / "x.bmp", 25)
    put(tmp_path / ".hidden" / "x.png", 99)
    (tmp_path / "ant" / "notes.txt").write_text("not a picture")
    found = read_samples(tmp_path, SHAPE)
    assert found.classes == ("ant", "cat", "zebra")
    assert found.labels.tolist() == [0, 0, 1, 2]
    assert found.images[:, 0, 0, 0].tolist() == [10, 20, 25, 30]
    assert found.images.shape == (4, *SHAPE)
    assert found.images.dtype == np.uint8
    assert not found.raw


def test_an_empty_class_folder_keeps_its_label(tmp_path: Path):
    put(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    put(tmp_path / "c" / "1.png", 3)
    assert read_samples(tmp_path, SHAPE).labels.tolist() == [0, 2]


def test_a_flat_folder_is_unlabelled(tmp_path: Path):
    put(tmp_path / "2.PNG", 20)
    put(tmp_path / "1.png", 10)
    found = read_samples(tmp_path, SHAPE)
    assert found.labels is None
    assert found.images[:, 0, 0, 0].tolist() == [10, 20]


def test_pictures_are_fitted(tmp_path: Path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 3:9] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    squashed = read_samples(tmp_path, SHAPE).images[0, 0, :, 0]
    cropped = read_samples(tmp_path, SHAPE, crop=True).images[0, 0, :, 0]
    assert squashed[0] < 20
    assert squashed[-1] < 20
    assert cropped.min() == 255


def test_colours_become_what_the_model_takes(tmp_path: Path):
    put(tmp_path / "a.png", 100, mode="L")
    put(tmp_path / "b.png", 100, mode="RGBA")
    assert read_samples(tmp_path, (4, 6, 3)).images.shape == (2, 4, 6, 3)
    assert read_samples(tmp_path, (4, 6, 1)).images.tolist() == [[[[100]] * 6] * 4] * 2


def test_npz_with_and_without_labels(tmp_path: Path, rng):
    x = rng.integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    found = read_samples(npz(tmp_path / "a.npz", x=x, y=np.arange(5, dtype=np.int8)), SHAPE)
    np.testing.assert_array_equal(found.images, x)
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.dtype == np.int64
    assert read_samples(npz(tmp_path / "b.npz", x=x), SHAPE).labels is None


def test_npz_of_grey_images_without_channel(tmp_path: Path):
    path = npz(tmp_path / "a.npz", x=np.zeros((5, 4, 6), np.uint8))
    assert read_samples(path, (4, 6, 1)).images.shape == (5, 4, 6, 1)


def test_npz_in_the_models_own_form(tmp_path: Path, rng):
    x = rng.normal(size=(5, 7)).astype(np.float64) * 100
    found = read_samples(npz(tmp_path / "a.npz", x=x, y=np.arange(5)), (0, 0, 0), raw=True)
    assert found.raw
    assert found.images.dtype == np.float32
    np.testing.assert_array_equal(found.images, x.astype(np.float32))
    np.testing.assert_array_equal(found.pixels, found.images)


@pytest.mark.parametrize("header", ["", "path,label\n", "Path,Label\n", "\ufeffpath,label\n"])
def test_csv_of_paths_and_labels(tmp_path: Path, header: str):
    put(tmp_path / "pictures" / "a.png", 10)
    put(tmp_path / "b c.png", 20)
    path = tmp_path / "list.csv"
    path.write_text(f'{header}pictures/a.png,3\n\n"b c.png", 1\n', encoding="utf-8")
    found = read_samples(path, SHAPE)
    assert found.labels.tolist() == [3, 1]
    assert found.images[:, 0, 0, 0].tolist() == [10, 20]


def test_csv_without_labels(tmp_path: Path):
    put(tmp_path / "a.png", 10)
    (tmp_path / "list.csv").write_text("a.png\na.png\n")
    found = read_samples(tmp_path / "list.csv", SHAPE)
    assert found.labels is None
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no rows"),
        ("path,label\n", "no rows"),
        ("a.png,cat\n", "'cat' is no number"),
        ("a.png,1.5\n", "'1.5' is no number"),
        ("a.png,1\na.png\n", "1 rows have no label"),
        ("missing.png,1\n", "no such picture"),
        ("list.csv,1\n", "not a picture"),
        (".,1\n", "damaged"),
        ("a\0.png,1\n", "damaged|cannot be read"),
    ],
)
def test_refused_csv(tmp_path: Path, text: str, cause: str):
    put(tmp_path / "a.png", 10)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=cause):
        read_samples(tmp_path / "list.csv", SHAPE)


X = np.zeros((3, *SHAPE), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"images": X}, "holds images; expected x"),
        ({}, "holds nothing; expected x"),
        ({"x": X.astype(np.float32)}, "x is float32 of shape .* --preprocess none"),
        ({"x": X[0, 0]}, "expected uint8"),
        ({"x": X[:, :, :5]}, "4 x 5 with 3 channels, the model takes 4 x 6 with 3"),
        ({"x": X[..., :1]}, "4 x 6 with 1 channels, the model takes 4 x 6 with 3"),
        ({"x": X[:0]}, "no images"),
        ({"x": X, "y": np.arange(2)}, "y is int64 of shape"),
        ({"x": X, "y": np.zeros(3)}, "y is float64"),
        ({"x": X, "y": np.eye(3, dtype=np.int64)}, "y is int64 of shape"),
        ({"x": X, "y": np.array(["a", "b", "c"])}, "y is <U1"),
        ({"x": np.array([None, 1])}, "not an .npz that can be read"),
    ],
)
def test_refused_npz(tmp_path: Path, arrays: dict[str, np.ndarray], cause: str):
    refuse(cause, npz(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize(
    ("x", "cause"),
    [
        (X, "--preprocess none takes float32"),
        (np.zeros((0, 3), np.float32), "no images"),
        (np.float32(3.0), r"x is float32 of shape \(\)"),
        (np.zeros(3, np.float32), r"x is float32 of shape \(3,\)"),
    ],
)
def test_refused_raw_npz(tmp_path: Path, x: np.ndarray, cause: str):
    refuse(cause, npz(tmp_path / "a.npz", x=x), raw=True)


def test_files_that_are_no_npz(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.save(tmp_path / "a.npy", X)
    np.savez_compressed(path, x=np.arange(5000, dtype=np.uint8))
    damaged = bytearray(path.read_bytes())
    damaged[100:140] = bytes(40)
    for content in (b"", b"text", b"PK\x03\x04", (tmp_path / "a.npy").read_bytes(), bytes(damaged)):
        path.write_bytes(content)
        refuse("not an .npz", path)
        refuse("not an .npz", path, raw=True)


def test_refused_places(tmp_path: Path):
    refuse("no such file or folder", tmp_path / "nowhere")
    (tmp_path / "data.tar").write_bytes(b"x")
    refuse("expected a folder, an .npz or a .csv", tmp_path / "data.tar")
    (tmp_path / "empty").mkdir()
    refuse("no pictures", tmp_path / "empty")
    put(tmp_path / "one" / "cat" / "a.png", 1)
    refuse(r"one class only \(cat\)", tmp_path / "one")


def png_of_size(width: int, height: int) -> bytes:
    """A tiny PNG that unpacks to width * height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_100, 10_000, 20_000, 100_000])
def test_pictures_that_unpack_to_gigabytes_are_refused(tmp_path: Path, side: int):
    (tmp_path / "bomb.png").write_bytes(png_of_size(side, side))
    with pytest.raises(DataError, match=r"bomb\.png"):
        picture(tmp_path / "bomb.png", "RGB")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm"])
def test_damaged_pictures_are_read_or_refused(tmp_path: Path, kind: str, rng):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    assert picture(path, "RGB").size == (12, 12)
    refused = 0
    for attempt in range(60):
        data = bytearray(whole[: rng.integers(1, len(whole))] if attempt % 2 else whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            picture(path, "RGB")
        except DataError:
            refused += 1
    assert refused > 5


def test_more_images_than_memory_allows_are_thinned_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    x = np.arange(40, dtype=np.uint8).repeat(12).reshape(40, 2, 2, 3)
    np.savez(tmp_path / "many.npz", x=x, y=np.arange(40) % 2)
    monkeypatch.setattr("lancet_onnx.samples.reading.MAX_BYTES", 10 * 4 * 12)
    samples = read_samples(tmp_path / "many.npz", (2, 2, 3))
    assert len(samples) == 10
    assert samples.left_out == 30
    kept = samples.images[:, 0, 0, 0]
    assert samples.labels.tolist() == (kept % 2).tolist()
    assert kept.tolist() == sorted(set(kept.tolist())) != list(range(10))
