"""A base set as arrays whose rows are dealt to training, validation and test once, for all tasks that are made of it."""

from typing import NamedTuple

import numpy as np

from metahpo_jax.tasks.images.files import Labelled
from metahpo_jax.tasks.preprocess import stable_seed

TRAIN, VALID, TEST = range(3)
HELD_SHARE = 0.2  # of validation, and of test
POOL = (1200, 400, 400)  # images of a class that are kept of a large base, for the three splits


class Pixels(NamedTuple):
    """Grey images uint8 `[n, h, w]`, classes int64 `[n]`, and the split of each, int8 `[n]`."""

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray


def deal(count: int, random: np.random.RandomState) -> np.ndarray:
    """Splits int8 `[count]`: a fifth each for validation and test, at least one, the rest for training."""
    held = max(round(HELD_SHARE * count), 1)
    split = np.full(count, TRAIN, np.int8)
    order = random.permutation(count)
    split[order[:held]], split[order[held : 2 * held]] = VALID, TEST
    return split


def scattered(name: str, data: Labelled) -> Pixels:
    """A base without a split of its own: dealt at random within each class."""
    return _pool(Pixels(data.images, data.labels, _scatter(name, data.labels)))


def official(name: str, train: Labelled, test: Labelled) -> Pixels:
    """A base whose test images are given; validation is dealt from its training images."""
    split = _scatter(name, train.labels)
    split[split == TEST] = TRAIN
    return _pool(
        Pixels(
            np.concatenate([train.images, test.images]),
            np.concatenate([train.labels, test.labels]),
            np.concatenate([split, np.full(len(test.labels), TEST, np.int8)]),
        )
    )


def distinct(images: np.ndarray) -> np.ndarray:
    """Which images are the first of their equals, bool `[n]`."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    _, first = np.unique(flat.view(f"V{flat.shape[1]}").ravel(), return_index=True)
    mask = np.zeros(len(images), bool)
    mask[first] = True
    return mask


def _scatter(name: str, labels: np.ndarray) -> np.ndarray:
    random = np.random.RandomState(stable_seed(name))
    split = np.zeros(len(labels), np.int8)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        split[members] = deal(len(members), random)
    return split


def _pool(data: Pixels) -> Pixels:
    """The first `POOL` images of each class and split."""
    kept = [
        np.flatnonzero((data.labels == label) & (data.split == split))[:limit]
        for label in np.unique(data.labels)
        for split, limit in enumerate(POOL)
    ]
    rows = np.concatenate(kept)
    return Pixels(*(array[rows] for array in data))
