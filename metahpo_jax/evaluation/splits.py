"""Splits over the tasks of an archive. No base data set, under any name, ever stands on both sides."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.metadata import Archive


class Fold(NamedTuple):
    """Tasks to learn from, to validate what was learned, and to test on; those in none of the three are left out."""

    name: str
    train: np.ndarray  # `[T]` bool
    valid: np.ndarray  # `[T]` bool
    test: np.ndarray  # `[T]` bool


def check_folds(archive: Archive, folds: Sequence[Fold]) -> None:
    """Passes if no test task, under its own or another name of its data set, is learned from, and each is tested once.

    Raises:
      SplitError: naming the fold and the task.
    """
    tested = np.zeros(len(archive.tasks), int)
    for fold in folds:
        seen = fold.train | fold.valid
        bases = {archive.tasks[t].base: archive.tasks[t].name for t in np.flatnonzero(seen)}
        for t in np.flatnonzero(fold.test):
            task = archive.tasks[t]
            if seen[t]:
                raise SplitError(f"fold {fold.name!r} learns from test task {task.name!r}; take it out of training.")
            if task.base in bases:
                raise SplitError(
                    f"fold {fold.name!r} tests on {task.name!r} and learns from {bases[task.base]!r}, both made of the data set "
                    f"{task.base!r}; take one of them out."
                )
        tested += fold.test
    if (tested > 1).any():
        name = archive.tasks[int(np.argmax(tested))].name
        raise SplitError(f"task {name!r} is tested in {tested.max()} folds; test each task in one.")
    if not tested.any():
        raise SplitError("the split tests no task.")


def by_base(archive: Archive) -> list[Fold]:
    """Leave one base data set out: all its tasks, over whatever space, are held out together."""
    return _leave_out(archive, [task.base for task in archive.tasks], "data set")


def by_group(archive: Archive) -> list[Fold]:
    """Leave one group (such as an architecture family) out; a task without a group is one by its data set."""
    return _leave_out(archive, [task.group or task.base for task in archive.tasks], "group")


def by_space(archive: Archive) -> list[Fold]:
    """Leave one search space out."""
    return _leave_out(archive, [task.space for task in archive.tasks], "search space")


def by_size(archive: Archive) -> list[Fold]:
    """Learn on the smaller half of the data sets, test on the larger half.

    Raises:
      SplitError: when the sizes are unknown or all equal.
    """
    bases = archive.bases
    sizes = np.array([max(t.size for t in archive.tasks if t.base == base) for base in bases])
    if not np.isfinite(sizes).all() or sizes.min() == sizes.max():
        raise SplitError("a split by size needs the number of rows of every data set, and different ones.")
    large = {bases[i] for i in np.argsort(sizes, kind="stable")[len(bases) // 2 :]}
    return one_split(archive, "large data sets", [task.base in large for task in archive.tasks])


def in_folds(count: int) -> Callable[[Archive], list[Fold]]:
    """Cross-validation over base data sets in `count` folds, dealt out in an order drawn once."""

    def split(archive: Archive) -> list[Fold]:
        bases = archive.bases
        fold_of = {bases[b]: i % count for i, b in enumerate(np.random.default_rng(0).permutation(len(bases)))}
        return _leave_out(archive, [f"fold {fold_of[task.base]}" for task in archive.tasks], "fold")

    return split


def one_split(archive: Archive, name: str, test: Sequence[bool]) -> list[Fold]:
    """One fold: `test [T]` is tested, the rest learned from, except other tasks of a tested data set."""
    return [_fold(archive, name, np.asarray(test, bool))]


def with_validation(archive: Archive, folds: Sequence[Fold], share: float) -> list[Fold]:
    """Moves about `share` of each fold's training data sets, at least one, to validation."""
    out = []
    for fold in folds:
        bases = list(dict.fromkeys(archive.tasks[t].base for t in np.flatnonzero(fold.train)))
        if len(bases) < 2:
            raise SplitError(f"fold {fold.name!r} has {len(bases)} training data sets; validation needs two or more.")
        count = min(max(1, round(share * len(bases))), len(bases) - 1)
        moved = {bases[i] for i in np.random.default_rng(0).permutation(len(bases))[:count]}
        valid = fold.train & np.array([task.base in moved for task in archive.tasks])
        out.append(fold._replace(train=fold.train & ~valid, valid=fold.valid | valid))
    return out


SPLITS: dict[str, Callable[[Archive], list[Fold]]] = {
    "base": by_base,
    "group": by_group,
    "space": by_space,
    "size": by_size,
    "tenfold": in_folds(10),
}


def split_named(name: str) -> Callable[[Archive], list[Fold]]:
    """A split by its name.

    Raises:
      ConfigError: for an unknown one.
    """
    if name not in SPLITS:
        raise ConfigError(f"unknown split {name!r}; known are {', '.join(SPLITS)}.")
    return SPLITS[name]


def _leave_out(archive: Archive, labels: Sequence[str], what: str) -> list[Fold]:
    names = tuple(dict.fromkeys(labels))
    if len(names) < 2:
        raise SplitError(f"leaving one {what} out needs at least two, got {len(names)} ({', '.join(names)}).")
    held = np.array(labels)
    return [_fold(archive, name, held == name) for name in names]


def _fold(archive: Archive, name: str, test: np.ndarray) -> Fold:
    tested = {archive.tasks[t].base for t in np.flatnonzero(test)}
    train = np.array([task.base not in tested for task in archive.tasks]) & ~test
    return Fold(name, train, np.zeros(len(test), bool), test)
