"""Splits over tasks: every one keeps data sets whole, tests each task once, and holds out what it says."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny_archive

from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.evaluation.splits import SPLITS, check_folds, one_split, split_named, with_validation

ARCHIVE = tiny_archive()
# by_space leaves no training task where both spaces hold the same data sets; that is the honest answer.
WHOLE = ["base", "group", "space", "tenfold"]


@pytest.mark.parametrize("name", SPLITS)
def test_the_contract(name: str) -> None:
    folds = split_named(name)(ARCHIVE)
    check_folds(ARCHIVE, folds)
    tested = np.sum([fold.test for fold in folds], axis=0)
    assert (tested == 1).all() if name in WHOLE else (tested <= 1).all() and tested.any()
    for fold in folds:
        assert not (fold.train & fold.test).any() and fold.train.shape == (len(ARCHIVE.tasks),)


@pytest.mark.parametrize(
    ("name", "held"), [("base", "base"), ("group", "group"), ("space", "space")], ids=lambda word: str(word)
)
def test_what_is_held_out_together(name: str, held: str) -> None:
    for fold in split_named(name)(ARCHIVE):
        labels = {getattr(ARCHIVE.tasks[t], held) for t in np.flatnonzero(fold.test)}
        assert len(labels) == 1
        assert all(getattr(task, held) in labels for task, test in zip(ARCHIVE.tasks, fold.test, strict=True) if test)


def test_by_size_goes_from_small_to_large() -> None:
    (fold,) = split_named("size")(ARCHIVE)
    sizes = np.array([task.size for task in ARCHIVE.tasks])
    assert sizes[fold.train].max() < sizes[fold.test].min()


def test_validation_tasks_are_taken_from_training_by_data_set() -> None:
    for fold in with_validation(ARCHIVE, split_named("base")(ARCHIVE), 0.3):
        sides = [{ARCHIVE.tasks[t].base for t in np.flatnonzero(side)} for side in (fold.train, fold.valid, fold.test)]
        assert all(sides) and not sides[0] & sides[1] and not sides[2] & (sides[0] | sides[1])


def test_bad_splits_are_sentences() -> None:
    with pytest.raises(ConfigError, match="known are base"):
        split_named("bases")
    unknown = dataclasses.replace(
        ARCHIVE, tasks=tuple(dataclasses.replace(task, size=np.nan) for task in ARCHIVE.tasks)
    )
    with pytest.raises(SplitError, match="number of rows"):
        split_named("size")(unknown)
    with pytest.raises(SplitError, match="at least two"):
        split_named("base")(ARCHIVE.select(["plain-0", "mixed-0"]))
    with pytest.raises(SplitError, match="tests no task"):
        check_folds(ARCHIVE, one_split(ARCHIVE, "none", [False] * len(ARCHIVE.tasks)))
    folds = one_split(ARCHIVE, "all", [True] * len(ARCHIVE.tasks))
    with pytest.raises(SplitError, match="is tested in 2 folds"):
        check_folds(ARCHIVE, [*folds, *folds])
    with pytest.raises(SplitError, match="validation needs two"):
        with_validation(ARCHIVE, folds, 0.5)
