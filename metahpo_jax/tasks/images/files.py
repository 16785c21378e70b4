"""Readers of image files: IDX (MNIST and its kin), CIFAR-10's binary form, NPZ. Nothing in them is trusted or unpickled.

A file that is truncated, has bytes left over or declares another content is refused with its name.
"""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metahpo_jax.errors import DataError

MAX_BYTES = 2**29  # of an unpacked file; CIFAR-10 has 2**25 a file, MNIST 2**26
CIFAR_SIDE = 32
_IDX_UINT8 = b"\x00\x00\x08"
_DAMAGE = (OSError, EOFError, ValueError, KeyError, MemoryError, NotImplementedError, zlib.error, zipfile.BadZipFile)


class Labelled(NamedTuple):
    """Grey images uint8 `[n, h, w]` and their classes int64 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes, packed by gzip or not, as uint8 of the shape that it declares.

    Raises:
        DataError: if it cannot be read, is no IDX file of bytes, or is shorter or longer than it declares.
    """
    raw = _bytes(path)
    if len(raw) < 4 or raw[:3] != _IDX_UINT8 or not 1 <= raw[3] <= 3 or len(raw) < 4 + 4 * raw[3]:
        raise DataError(
            f"{path} is no IDX file of bytes with 1 to 3 axes (it starts with {raw[:4].hex()}); fetch it again."
        )
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    content = raw[4 + 4 * raw[3] :]
    if len(content) != math.prod(shape):
        raise DataError(
            f"{path} declares {' x '.join(map(str, shape))} = {math.prod(shape)} bytes but holds {len(content)}; "
            "it is damaged: fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> Labelled:
    """Images and labels of two IDX files.

    Raises:
        DataError: if one is damaged, or they do not belong together.
    """
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
        raise DataError(
            f"{images} holds an array {list(pixels.shape)} and {labels} one {list(classes.shape)}; "
            "expected images [n, h, w] and labels [n]."
        )
    return Labelled(pixels, classes.astype(np.int64))


def read_cifar10(path: Path) -> Labelled:
    """One file of CIFAR-10's binary form, a label and 3 x 32 x 32 bytes a record, as luminance.

    Raises:
        DataError: if it does not consist of whole records, or a label is above 9.
    """
    raw = np.frombuffer(_bytes(path), np.uint8)
    record = 1 + 3 * CIFAR_SIDE**2
    if raw.size == 0 or raw.size % record:
        raise DataError(f"{path} holds {raw.size} bytes, which is no multiple of a record's {record}; fetch it again.")
    records = raw.reshape(-1, record)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise DataError(
            f"{path}: record {row} has label {labels[row]}, but CIFAR-10 has classes 0 to 9; fetch it again."
        )
    pixels = records[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return Labelled(luminance(np.moveaxis(pixels, 1, -1)), labels)


def read_npz(path: Path) -> tuple[Labelled, Labelled | None]:
    """An NPZ file with `x` and `y`, or with `x_train`, `y_train`, `x_test` and `y_test` (then the second is the test).

    Images are `[n, h, w]` or `[n, h, w, 3]`, uint8 or floats in `[0, 1]`; labels are whole numbers `[n]`.

    Raises:
        DataError: if the file is damaged, or an array is absent, holds objects or has another shape or range.
    """
    try:
        if sum(member.file_size for member in zipfile.ZipFile(path).infolist()) > MAX_BYTES:
            raise DataError(f"{path} unpacks to more than {MAX_BYTES} bytes; store fewer images.")
        with np.load(path, allow_pickle=False) as arrays:
            found = {
                name: arrays[name] for name in ("x", "y", "x_train", "y_train", "x_test", "y_test") if name in arrays
            }
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as NPZ without unpickling ({error}); write it again.") from error
    if {"x_train", "y_train", "x_test", "y_test"} <= set(found):
        train = _labelled(path, found["x_train"], found["y_train"])
        return train, _labelled(path, found["x_test"], found["y_test"])
    if {"x", "y"} <= set(found):
        return _labelled(path, found["x"], found["y"]), None
    raise DataError(
        f"{path} holds {', '.join(found) or 'none'} of the arrays that are known; "
        "name them x and y, or x_train, y_train, x_test and y_test."
    )


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Grey values of ITU-R BT.601, uint8 `[..., 3]` to `[...]`, in whole numbers, so that every machine rounds alike."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def _bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is named .gz, but never more than `MAX_BYTES`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES} bytes, which no such data set has; fetch it again.")
    return content


def _labelled(path: Path, x: np.ndarray, y: np.ndarray) -> Labelled:
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] != 3) or min(x.shape) < 1:
        raise DataError(f"{path}: images have shape {list(x.shape)}; expected [n, h, w] or [n, h, w, 3].")
    if y.size != len(x) or y.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {y.dtype} {list(y.shape)}; expected whole numbers [{len(x)}].")
    if x.dtype != np.uint8:
        if x.dtype.kind != "f" or not (np.min(x) >= 0 and np.max(x) <= 1):  # NaN fails both
            raise DataError(f"{path}: images are {x.dtype}; expected uint8, or floats between 0 and 1.")
        x = np.rint(x.astype(np.float64) * 255).astype(np.uint8)
    return Labelled(luminance(x) if x.ndim == 4 else x, y.reshape(-1).astype(np.int64))
