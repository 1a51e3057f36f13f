# SPDX-License-Identifier: Apache-2.0
"""Read `Samples` from a folder of class folders, a flat folder, an npz or a CSV of path,label."""

from __future__ import annotations

import csv
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lancet_onnx.errors import DataError
from lancet_onnx.samples.core import Samples

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
MAX_BYTES = 2 << 30
"""Images that would take more than this as float32 are left out, at random (seed 0)."""

T = TypeVar("T")
Reader = Callable[[Path], NDArray[np.uint8]]

NPZ_ERRORS = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, NotImplementedError, RuntimeError, KeyError, TypeError, TokenError),
)
"""What numpy and zipfile raise for damaged, encrypted, oversized and pickled archives."""

MAX_PIXELS = 64_000_000
"""Pictures with more pixels are refused: a small file can unpack to gigabytes."""


def read_samples(
    path: Path,
    shape: tuple[int, ...],
    *,
    raw: bool = False,
    crop: bool = False,
    names: tuple[str, ...] = (),
) -> Samples:
    """Read images of `shape` (H, W, C); pictures of another size are fitted to it.

    Fitting squashes, or with `crop` scales the shorter side and takes the middle. With `raw` an
    npz holds float32 inputs in the model's own form, which are not touched; if it has no x but
    arrays of all of `names` (the model's several inputs), these are stacked along axis 1.

    Raises:
        DataError: nothing there, unreadable files, wrong sizes or labels.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; --data takes a folder of class folders, a flat "
            "folder of pictures, an .npz with x and y, or a CSV of path,label"
        )
    if raw:
        return _npz(path, shape, raw=True, names=names)
    height, width, channels = shape

    def read(picture_path: Path) -> NDArray[np.uint8]:
        return _pixels(picture_path, (height, width), channels, crop=crop)

    limit = max(1, MAX_BYTES // (4 * height * width * channels))
    if path.is_dir():
        return _folder(path, read, limit)
    if path.suffix == ".npz":
        return _thinned(_npz(path, shape, raw=False), limit)
    if path.suffix == ".csv":
        return _csv(path, read, limit)
    raise DataError(f"{path}: expected a folder, an .npz or a .csv")


def picture(path: Path, mode: str) -> Image.Image:
    """Open one picture in the given Pillow mode (``L``, ``RGB``, ``RGBA``), or as stored if empty.

    Raises:
        DataError: missing, no picture, damaged, or larger than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as stream, Image.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {image.width} x {image.height} pixels are too many; at most "
                        f"{MAX_PIXELS // 1_000_000} million are read"
                    )
                image.load()
                return image.convert(mode) if mode else image.copy()
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; expected a picture") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{path}: too many pixels; at most {MAX_PIXELS // 1_000_000} million are read"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read") from None
    except (OSError, ValueError, SyntaxError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the picture is damaged ({error})") from None


def _pixels(path: Path, size: tuple[int, int], channels: int, *, crop: bool) -> NDArray[np.uint8]:
    image = picture(path, "L" if channels == 1 else "RGB")
    if image.size != (size[1], size[0]) and crop:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    elif image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(*size, channels)


def _folder(path: Path, read: Reader, limit: int) -> Samples:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    flat = [p for p in sorted(path.iterdir()) if p.suffix.lower() in PICTURES]
    if flat and not folders:
        images = [read(p) for p in _some(flat, limit)]
        left_out = len(flat) - len(images)
        return Samples(np.stack(images), None, False, str(path), left_out=left_out)
    found = [
        (p, label)
        for label, folder in enumerate(folders)
        for p in sorted(folder.rglob("*"))
        if p.suffix.lower() in PICTURES
    ]
    if not found:
        raise DataError(f"{path}: no pictures in it ({', '.join(sorted(PICTURES))})")
    if len({label for _, label in found}) < 2:
        raise DataError(
            f"{path}: pictures of one class only ({folders[found[0][1]].name}); a folder of class "
            "folders needs at least two. For unlabelled pictures put them directly into the folder"
        )
    chosen = _some(found, limit)
    images = [read(p) for p, _ in chosen]
    labels = np.array([label for _, label in chosen], np.int64)
    names, left_out = tuple(f.name for f in folders), len(found) - len(chosen)
    return Samples(np.stack(images), labels, False, str(path), names, left_out)


def _csv(path: Path, read: Reader, limit: int) -> Samples:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    if rows and rows[0][0].strip().lower() == "path":
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: no rows; expected lines of path,label")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    chosen = _some(list(enumerate(rows, start=1)), limit)
    for line, row in chosen:
        if len(row) > 1:
            try:
                labels.append(int(row[1]))
            except ValueError:
                raise DataError(f"{path}: row {line}: the label '{row[1]}' is no number") from None
        images.append(read(path.parent / row[0].strip()))
    if labels and len(labels) != len(images):
        raise DataError(
            f"{path}: {len(images) - len(labels)} rows have no label; label all or none"
        )
    stacked = np.array(labels, np.int64) if labels else None
    left_out = len(rows) - len(chosen)
    return Samples(np.stack(images), stacked, False, str(path), left_out=left_out)


def _some(items: Sequence[T], limit: int) -> Sequence[T]:
    """Return the items, or `limit` of them chosen at random, in their order."""
    if len(items) <= limit:
        return items
    chosen = np.random.default_rng(0).choice(len(items), limit, replace=False)
    return [items[i] for i in np.sort(chosen)]


def _thinned(samples: Samples, limit: int) -> Samples:
    index = np.array(_some(range(len(samples)), limit), np.int64)
    left_out = len(samples) - len(index)
    return replace(samples.take(index), left_out=left_out) if left_out else samples


def _npz(path: Path, shape: tuple[int, ...], *, raw: bool, names: tuple[str, ...] = ()) -> Samples:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: not an .npz, or a truncated one; expected a file that numpy.savez wrote"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            held = archive.files
            arrays = {key: archive[key] for key in ("x", "y", *names) if key in held}
    except NPZ_ERRORS as error:
        raise DataError(f"{path}: not an .npz that can be read ({error})") from error
    if names and all(name in arrays for name in names):
        if len({arrays[name].shape for name in names}) > 1:
            raise DataError(f"{path}: {', '.join(names)} differ in shape; they go in together")
        arrays["x"] = np.stack([arrays[name] for name in names], axis=1)
    if "x" not in arrays:
        listed, wanted = ", ".join(held) or "nothing", ", ".join(names)
        raise DataError(
            f"{path}: holds {listed}; expected x, and y if known"
            + (f" (or, for this model, {wanted})" if names else "")
        )
    x = arrays["x"]
    if raw:
        if x.dtype.kind not in "fi" or x.ndim < 2:
            raise DataError(
                f"{path}: x is {x.dtype} of shape {x.shape}; --preprocess none takes float32 "
                "inputs, or whole numbers for a model of tokens"
            )
        x = x.astype(np.float32)
    else:
        if x.ndim == 3:
            x = x[..., None]
        if x.dtype != np.uint8 or x.ndim != 4:
            raise DataError(
                f"{path}: x is {x.dtype} of shape {x.shape}; expected uint8 (N, H, W, C), or "
                "float32 in the model's own input form together with --preprocess none"
            )
        if x.shape[1:] != shape:
            wanted = f"{shape[0]} x {shape[1]} with {shape[2]} channels"
            raise DataError(
                f"{path}: images are {x.shape[1]} x {x.shape[2]} with {x.shape[3]} channels, "
                f"the model takes {wanted}; scale them, or give a folder of pictures"
            )
    if len(x) == 0:
        raise DataError(f"{path}: x holds no images")
    labels = arrays.get("y")
    if labels is not None:
        if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
            raise DataError(
                f"{path}: y is {labels.dtype} of shape {labels.shape}; expected one whole number "
                f"for each of the {len(x)} images"
            )
        labels = labels.astype(np.int64)
    return Samples(x, labels, raw, str(path))
