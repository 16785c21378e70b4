"""Resizing and corruptions of grey images, the same to the bit on every run.

Images are uint8 `[n, h, w]` between the steps: rounding to whole grey values makes the last digits of a machine's sine and
exponential harmless, and resizing is done in whole numbers altogether.
"""

from collections.abc import Callable

import numpy as np

_CHUNK = 4096  # images resized at once


def resize(images: np.ndarray, side: int) -> np.ndarray:
    """The central square of each image, averaged over areas; uint8 `[n, h, w]` to `[n, side, side]`.

    A pixel that straddles two target pixels counts in each with the share that lies there.
    """
    size = min(images.shape[1:])
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    square = images[:, top : top + size, left : left + size]
    if size == side:
        return square
    # overlap of target pixel i with source pixel j, both measured in units of 1 / (size * side) of the image
    i, j = np.arange(side)[:, None], np.arange(size)[None, :]
    overlap = np.clip(np.minimum((i + 1) * size, (j + 1) * side) - np.maximum(i * size, j * side), 0, None)
    weights = overlap.astype(np.float64)  # the products are whole numbers below 2**53: exact in any order of summation
    out = np.empty((len(images), side, side), np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = square[start : start + _CHUNK].astype(np.float64)
        total = (weights @ chunk @ weights.T).astype(np.int64)
        out[start : start + _CHUNK] = (total + size * size // 2) // (size * size)
    return out


def rotate(images: np.ndarray, degrees: float, random: np.random.RandomState) -> np.ndarray:
    """Turn each image by its own angle in +- `degrees` about its centre, bilinearly; the border continues outwards."""
    n, h, w = images.shape
    angle = np.deg2rad(random.uniform(-degrees, degrees, n))[:, None, None]
    y, x = np.arange(h)[None, :, None] - (h - 1) / 2, np.arange(w)[None, None, :] - (w - 1) / 2
    row = np.clip(np.cos(angle) * y - np.sin(angle) * x + (h - 1) / 2, 0, h - 1)
    column = np.clip(np.sin(angle) * y + np.cos(angle) * x + (w - 1) / 2, 0, w - 1)
    top, left = np.minimum(row.astype(int), h - 2), np.minimum(column.astype(int), w - 2)
    down, right = row - top, column - left
    pixels, image = images.astype(np.float64), np.arange(n)[:, None, None]
    above = (1 - right) * pixels[image, top, left] + right * pixels[image, top, left + 1]
    below = (1 - right) * pixels[image, top + 1, left] + right * pixels[image, top + 1, left + 1]
    return _grey((1 - down) * above + down * below)


def blur(images: np.ndarray, width: float, random: np.random.RandomState) -> np.ndarray:
    """Convolve with a Gaussian whose standard deviation is `width` of the image's side; the border continues outwards."""
    sigma = width * images.shape[1]
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    pixels = images.astype(np.float64)
    for axis in (1, 2):
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(pixels, padding, mode="edge")
        size = pixels.shape[axis]
        pixels = np.zeros_like(pixels)
        for k, weight in enumerate(kernel):
            pixels += weight * np.take(padded, range(k, k + size), axis)
    return _grey(pixels)


def fade(images: np.ndarray, loss: float, random: np.random.RandomState) -> np.ndarray:
    """Shrink each image's contrast about middle grey by its own share, and shift its brightness, by up to `loss`."""
    kept = 1 - random.uniform(0, loss, len(images))[:, None, None]
    shift = 127.5 * random.uniform(-loss, loss, len(images))[:, None, None]
    return _grey(127.5 + kept * (images - 127.5) + shift)


def add_noise(images: np.ndarray, deviation: float, random: np.random.RandomState) -> np.ndarray:
    """Add Gaussian noise of a standard deviation in units of the full range, and clip."""
    return _grey(images + 255 * deviation * random.standard_normal(images.shape))


Corrupt = Callable[[np.ndarray, float, np.random.RandomState], np.ndarray]

# Before resizing, while there is detail to interpolate; and after it, in this order, as a camera would.
FULL_SIZE: dict[str, Corrupt] = {"rotation": rotate}
RESIZED: dict[str, Corrupt] = {"blur": blur, "contrast": fade, "noise": add_noise}


def _grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
