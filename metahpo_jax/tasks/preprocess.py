"""From a raw table to fixed, standardised arrays: split, cap, encode, in this order.

The rules, each applied with the statistics of the training rows only:

1.  Rows without a label are dropped, then the classes with fewer than 10 rows; 150 rows and two classes must remain.
2.  A stratified split of 60 / 20 / 20, whose seed is a hash of the data set's name.
3.  A stratified subsample caps training at 4096 rows, validation and test at 1024 each.
4.  Numeric columns: a missing value becomes the median, with an indicator column if the training rows miss any.
5.  Categorical columns: one-hot over the 12 most frequent categories (missing is a category), the rest "other". A
    column with only two categories becomes one indicator. A category unseen in training is "other" where that exists,
    and all zeros where not.
6.  Constant columns are dropped; of more than 128 columns those with the highest variance after min-max scaling stay.
7.  Standardised to mean 0 and variance 1, then clipped to +-10, so that no single outlier decides a training run.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from metahpo_jax.errors import DataError

MIN_ROWS = 150
MIN_CLASS_ROWS = 10
MAX_TRAIN_ROWS = 4096
MAX_EVAL_ROWS = 1024
MAX_CATEGORIES = 12
MAX_FEATURES = 128
EVAL_SHARE = 0.2
CLIP = 10.0


class Column(NamedTuple):
    """A raw column: float64 `[n]` with NaN for missing, or, if categorical, str `[n]` with "" for missing."""

    name: str
    values: np.ndarray
    categorical: bool


@dataclass(frozen=True)
class RawTable:
    """A data set as it was read: its feature columns, and its labels as str `[n]` with "" for missing."""

    columns: tuple[Column, ...]
    target: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """Encoded splits: x `[n, F]` float32, y `[n]` int32; the shares of categorical and of incomplete raw columns."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_valid: np.ndarray
    y_valid: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    n_classes: int
    categorical_share: float
    missing_share: float


class _Rows(NamedTuple):
    """The rows of each split, as indices into the raw table."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def stable_seed(name: str) -> int:
    """A seed in `[0, 2**32)` that depends on the name only, in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def prepare(name: str, table: RawTable) -> Prepared:
    """Split and encode a raw table; the name alone seeds the split.

    Raises:
        DataError: if too few rows, classes or informative columns remain, or if columns differ in length.
    """
    for column in table.columns:
        if len(column.values) != len(table.target):
            raise DataError(
                f"data set '{name}': column '{column.name}' has {len(column.values)} values but the target has "
                f"{len(table.target)}; give every column one value per row."
            )
    kept, labels = _labels(name, table.target)
    # RandomState: unlike that of default_rng, its stream is frozen across NumPy versions, and published tables depend
    # on these splits.
    random = np.random.RandomState(stable_seed(name))
    rows = _split(labels, random)
    columns = [column._replace(values=column.values[kept]) for column in table.columns]
    x = _standardise(name, _encode(columns, len(kept), rows.train), rows.train)
    return Prepared(
        x_train=x[rows.train],
        y_train=labels[rows.train],
        x_valid=x[rows.valid],
        y_valid=labels[rows.valid],
        x_test=x[rows.test],
        y_test=labels[rows.test],
        n_classes=int(labels.max()) + 1,
        categorical_share=float(np.mean([column.categorical for column in columns])),
        missing_share=float(np.mean([_missing(column)[rows.train].any() for column in columns])),
    )


def _missing(column: Column) -> np.ndarray:
    """Where a column has no value; bool `[n]`."""
    return column.values == "" if column.categorical else ~np.isfinite(column.values)


def _labels(name: str, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that stay, and their classes as int32, numbered in the order of the sorted labels."""
    target = np.asarray(target, dtype=str)
    classes, counts = np.unique(target[target != ""], return_counts=True)
    classes = classes[counts >= MIN_CLASS_ROWS]
    kept = np.flatnonzero(np.isin(target, classes))
    if len(classes) < 2:
        raise DataError(
            f"data set '{name}': the target has {len(classes)} classes with at least {MIN_CLASS_ROWS} rows, but "
            "classification needs two; choose another target column."
        )
    if len(kept) < MIN_ROWS:
        raise DataError(
            f"data set '{name}': {len(kept)} rows have a usable label, but at least {MIN_ROWS} are needed; "
            "leave it out."
        )
    return kept, np.searchsorted(classes, target[kept]).astype(np.int32)


def _split(labels: np.ndarray, random: np.random.RandomState) -> _Rows:
    """Stratified 60 / 20 / 20 split with caps."""
    train, valid, test = [], [], []
    for label in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == label))
        held = round(EVAL_SHARE * len(members))
        valid.append(members[:held])
        test.append(members[held : 2 * held])
        train.append(members[2 * held :])
    return _Rows(_cap(train, MAX_TRAIN_ROWS), _cap(valid, MAX_EVAL_ROWS), _cap(test, MAX_EVAL_ROWS))


def _cap(members: list[np.ndarray], limit: int) -> np.ndarray:
    """At most `limit` rows, ascending: a prefix of each (shuffled) class, in proportion, by largest remainder."""
    sizes = np.array([len(m) for m in members])
    if sizes.sum() > limit:
        quota = sizes * limit / sizes.sum()
        take = np.maximum(np.floor(quota).astype(int), 1)
        order = np.argsort(-(quota - take), kind="stable")
        take[order[: max(limit - take.sum(), 0)]] += 1
        members = [m[:n] for m, n in zip(members, take, strict=True)]
    return np.sort(np.concatenate(members))


def _encode(columns: list[Column], rows: int, train: np.ndarray) -> np.ndarray:
    """All columns as float64 `[n, F]`, without missing values."""
    parts: list[np.ndarray] = []
    for column in columns:
        parts.extend(_one_hot(column.values, train) if column.categorical else _impute(column.values, train))
    return np.stack(parts, axis=1) if parts else np.zeros((rows, 0))


def _impute(values: np.ndarray, train: np.ndarray) -> list[np.ndarray]:
    """The column with non-finite values at the training median, and an indicator of them if training has any."""
    missing = ~np.isfinite(values)
    if missing[train].all():
        return []
    filled = np.where(missing, np.median(values[train][~missing[train]]), values)
    return [filled, missing.astype(float)] if missing[train].any() else [filled]


def _one_hot(values: np.ndarray, train: np.ndarray) -> list[np.ndarray]:
    """Indicators of the most frequent training categories, ties by name, and of "other" if training has others."""
    categories, counts = np.unique(values[train], return_counts=True)
    frequent = categories[np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]]
    if len(categories) == 2:
        return [(values == frequent[1]).astype(float)]
    parts = [(values == category).astype(float) for category in frequent]
    if len(categories) > MAX_CATEGORIES:
        parts.append((~np.isin(values, frequent)).astype(float))
    return parts


def _standardise(name: str, x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Drop constant columns, keep at most `MAX_FEATURES`, then standardise and clip; float32 `[n, F]`."""
    span = np.ptp(x[train], axis=0)
    x = x[:, span > 0]
    if x.shape[1] == 0:
        raise DataError(
            f"data set '{name}': every feature column is constant on the training rows; "
            "check the columns that are dropped."
        )
    if x.shape[1] > MAX_FEATURES:
        spread = np.var(x[train] / span[span > 0], axis=0)
        x = x[:, np.sort(np.argsort(-spread, kind="stable")[:MAX_FEATURES])]
    mean, scale = x[train].mean(axis=0), x[train].std(axis=0)
    return np.clip((x - mean) / scale, -CLIP, CLIP).astype(np.float32)
