"""The family of image tasks: recipes in, data sets and padded tasks out."""

from functools import cache
from pathlib import Path

import numpy as np

from metahpo_jax.tasks.base import TaskShape
from metahpo_jax.tasks.family import DataSet, TaskFamily
from metahpo_jax.tasks.images.bases import Base, bases, read_base, read_resized
from metahpo_jax.tasks.images.corrupt import FULL_SIZE, RESIZED, Corrupt, resize
from metahpo_jax.tasks.images.descriptors import IMAGE_DESCRIPTORS, describe_images
from metahpo_jax.tasks.images.pixels import TEST, TRAIN, VALID, Pixels
from metahpo_jax.tasks.images.recipe import MAX_CLASSES, Recipe, draw
from metahpo_jax.tasks.preprocess import stable_seed

TRAIN_ROWS, EVAL_ROWS = 2048, 512  # of the padded tasks: one shape for each resolution


class ImageFamily(TaskFamily[Recipe]):
    """Image tasks by their recipes; only those whose base is present have names."""

    kind = "image task"
    descriptors = IMAGE_DESCRIPTORS

    def __init__(self, data: Path | None = None):
        """List the tasks, without reading images other than those of NPZ files.

        Args:
            data: a folder that may hold fashion-mnist/, cifar-10-batches-bin/ and NPZ files.

        Raises:
            DataError: if `data` is no folder, or an NPZ file in it is not usable.
        """
        self._data = data
        self._bases = bases(data)
        super().__init__(draw(b.name, i, b.n_classes, b.sides) for b in self._bases.values() for i in range(b.tasks))
        absent = {base.name: base.absence for base in self._bases.values() if base.find(data) is None}
        self._names = tuple(name for name, recipe in self._sources.items() if recipe.base not in absent)
        self._absences = tuple(absent.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks whose base is present; `info` and `base` know the others too."""
        return self._names

    @property
    def absences(self) -> tuple[str, ...]:
        """Of the bases that cannot be had here."""
        return self._absences

    def read(self, source: Recipe) -> DataSet:
        """The images of a recipe."""
        base = self._bases[source.base]
        return _load(source, base, base.locate(self._data))

    def shape(self, name: str) -> TaskShape:
        """One of three, by resolution."""
        return TaskShape(TRAIN_ROWS, EVAL_ROWS, self.info(name).side ** 2, MAX_CLASSES)


def image_tasks(data: Path | None = None) -> ImageFamily:
    """The image tasks that can be had here: 100 where all six bases are present, more with CIFAR-10 or NPZ files.

    A task is its (base, index): it is the same whatever other bases are present.

    Args:
        data: a folder that may hold fashion-mnist/, cifar-10-batches-bin/ and NPZ files.

    Raises:
        DataError: if `data` is no folder, or an NPZ file in it is not usable.
    """
    return ImageFamily(data)


@cache
def _load(recipe: Recipe, base: Base, path: Path) -> DataSet:
    pixels = read_base(base, path)
    random = np.random.RandomState(stable_seed(f"image rows {recipe.name}"))
    small, first = read_resized(base, path, recipe.side)
    rows = {split: _rows(pixels, first, recipe, split, random) for split in (TRAIN, VALID, TEST)}
    stack = _damage(recipe, pixels.images, small, np.concatenate(list(rows.values())), random)
    # labels number the recipe's classes in its order
    lookup = np.zeros(base.n_classes, np.int32)
    lookup[list(recipe.classes)] = np.arange(len(recipe.classes), dtype=np.int32)
    y = {split: lookup[pixels.labels[members]] for split, members in rows.items()}
    train = stack[: len(rows[TRAIN])]
    x = _standardise(stack, train)
    ends = np.cumsum([len(members) for members in rows.values()])
    x_train, x_valid, x_test, _ = np.split(x, ends)
    descriptor = describe_images(train, y[TRAIN], len(recipe.classes))
    return DataSet(
        name=recipe.name,
        base=recipe.base,
        source=f"{base.source}: {recipe.text}",
        licence=base.licence,
        simulated=base.simulated,
        bundled=base.bundled,
        x_train=x_train,
        y_train=y[TRAIN],
        x_valid=x_valid,
        y_valid=y[VALID],
        x_test=x_test,
        y_test=y[TEST],
        n_classes=len(recipe.classes),
        descriptor=descriptor,
    )


def _rows(pixels: Pixels, first: np.ndarray, recipe: Recipe, split: int, random: np.random.RandomState) -> np.ndarray:
    """Rows of the base for one split of a task, shuffled: as many as wanted, or as the class that runs out allows."""
    pools = [
        random.permutation(np.flatnonzero((pixels.split == split) & (pixels.labels == label) & first))
        for label in recipe.classes
    ]
    steps = len(pools) - 1
    shares = np.array([recipe.imbalance ** (i / steps) for i in range(len(pools))])
    shares /= shares.sum()
    goal = recipe.rows if split == TRAIN else EVAL_ROWS
    total = min(goal, min(len(pool) / share for pool, share in zip(pools, shares, strict=True)))
    taken = [pool[: max(int(total * share), 1)] for pool, share in zip(pools, shares, strict=True)]
    return random.permutation(np.concatenate(taken))


def _damage(
    recipe: Recipe, full: np.ndarray, small: np.ndarray, rows: np.ndarray, random: np.random.RandomState
) -> np.ndarray:
    """The corrupted images of a task, uint8 `[n, side, side]`."""
    strengths = {corruption.kind: corruption.strength for corruption in recipe.corruptions}
    stack = small[rows]
    if any(kind in strengths for kind in FULL_SIZE):
        stack = resize(_apply(FULL_SIZE, strengths, full[rows], random), recipe.side)
    return _apply(RESIZED, strengths, stack, random)


def _apply(
    corruptions: dict[str, Corrupt], strengths: dict[str, float], stack: np.ndarray, random: np.random.RandomState
) -> np.ndarray:
    for kind, corrupt in corruptions.items():
        if kind in strengths:
            stack = corrupt(stack, strengths[kind], random)
    return stack


def _standardise(stack: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Float32 `[n, side * side]` by the mean and deviation of all training pixels, whose sums are of whole numbers: exact."""
    values, count = train.astype(np.int64), train.size
    total, squares = int(values.sum()), int((values**2).sum())
    mean, deviation = total / count, np.sqrt(count * squares - total**2) / count
    return ((stack.reshape(len(stack), -1) - mean) / deviation).astype(np.float32)
