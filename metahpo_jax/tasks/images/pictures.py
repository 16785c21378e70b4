"""Patches of photographs. Areas are dealt to training, validation and test, and a patch lies within one area.

So no pixel is in two splits. Patches of one area do overlap, which makes cross-validated landmarkers a little optimistic.
"""

from pathlib import Path

import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.tasks.images.files import luminance
from metahpo_jax.tasks.images.pixels import Pixels, deal
from metahpo_jax.tasks.preprocess import stable_seed

GRID = (2, 5)  # rows and columns of regions in a photograph
# Regions of scikit-learn's photographs, each a class: all of china, and of flower those that show more than black background.
REGIONS = (
    *(("china.jpg", row, column) for row in range(GRID[0]) for column in range(GRID[1])),
    *(("flower.jpg", row, column) for row in range(GRID[0]) for column in (1, 2, 3)),
)
REGION_PATCH = 16  # pixels
PICTURE_PATCH = 32

# Of the pictures that scikit-image ships, those which its documentation calls CC0 or free of known copyright restrictions.
PICTURES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


def photographs(name: str, folder: Path) -> Pixels:
    """The photographs of scikit-learn: a class is a region, so the task is to say where in them a patch belongs."""
    return cut(name, [_region(_picture(folder / item), row, column) for item, row, column in REGIONS], REGION_PATCH)


def pictures(name: str, folder: Path) -> Pixels:
    """The pictures of scikit-image: a class is a picture."""
    return cut(name, [_picture(folder / item) for item in PICTURES], PICTURE_PATCH)


def areas(height: int, width: int, patch: int, random: np.random.RandomState) -> list[tuple[int, int, int]]:
    """Top, left and split of the square areas, half as wide again as a patch, that tile a picture."""
    block = _area_side(patch)
    corners = [(y, x) for y in range(0, height - block + 1, block) for x in range(0, width - block + 1, block)]
    return [(y, x, int(split)) for (y, x), split in zip(corners, deal(len(corners), random), strict=True)]


def cut(name: str, tiles: list[np.ndarray], patch: int) -> Pixels:
    """Nine patches of each area of each tile `[H, W]`; a class is a tile."""
    random = np.random.RandomState(stable_seed(name))
    images, labels, splits = [], [], []
    reach, stride = _area_side(patch) - patch + 1, patch // 4
    for label, tile in enumerate(tiles):
        windows = np.lib.stride_tricks.sliding_window_view(tile, (patch, patch))
        for top, left, split in areas(tile.shape[0], tile.shape[1], patch, random):
            inside = windows[top : top + reach : stride, left : left + reach : stride].reshape(-1, patch, patch)
            images.append(inside)
            labels += [label] * len(inside)
            splits += [split] * len(inside)
    return Pixels(np.concatenate(images), np.array(labels, np.int64), np.array(splits, np.int8))


def _area_side(patch: int) -> int:
    return 3 * patch // 2


def _region(photograph: np.ndarray, row: int, column: int) -> np.ndarray:
    height, width = (size // count for size, count in zip(photograph.shape, GRID, strict=True))
    return photograph[row * height : (row + 1) * height, column * width : (column + 1) * width]


def _picture(path: Path) -> np.ndarray:
    """Grey values uint8 `[H, W]` of a picture file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return luminance(np.asarray(image.convert("RGB")))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); install the package that ships it again.") from error
