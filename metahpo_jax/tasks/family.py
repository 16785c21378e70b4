"""Task families: named data sets, loaded on demand, as arrays or as padded tasks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Generic, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.tasks.base import Split, Task, TaskShape
from metahpo_jax.tasks.catalogue import BUNDLED, CATALOGUE, REAL, Source
from metahpo_jax.tasks.descriptors import DESCRIPTORS, describe
from metahpo_jax.tasks.preprocess import MAX_EVAL_ROWS, MAX_TRAIN_ROWS, Prepared, prepare
from metahpo_jax.tasks.read import read, require

ROWS = (
    "x_train",
    "y_train",
    "x_valid",
    "y_valid",
    "x_test",
    "y_test",
)  # the arrays of a data set that have a row per example
FEATURE_BUCKETS = (16, 32, 64, 128)
FEW_CLASSES, MANY_CLASSES = 4, 32
FEW_CLASSES_FEATURES = (
    32  # wider sets, and those with many classes, are few: they share the wide buckets for many classes
)


@dataclass(frozen=True)
class DataSet:
    """One data set: x `[n, F]` float32, standardised; y `[n]` int32; descriptor `[m]` float32, NaN where missing."""

    name: str
    base: str
    source: str
    licence: str
    simulated: bool
    bundled: bool
    x_train: np.ndarray
    y_train: np.ndarray
    x_valid: np.ndarray
    y_valid: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    n_classes: int
    descriptor: np.ndarray

    def __post_init__(self) -> None:
        """Families cache what they load and hand out the same arrays every time: nobody may write to them."""
        for field in (*ROWS, "descriptor"):
            getattr(self, field).flags.writeable = False

    @classmethod
    def of(
        cls, prepared: Prepared, *, name: str, base: str, source: str, licence: str, simulated: bool = False, bundled: bool = False
    ) -> Self:  # fmt: skip
        """A prepared table under its name, with its descriptor."""
        return cls(
            name=name, base=base, source=source, licence=licence, simulated=simulated, bundled=bundled,
            **{field: getattr(prepared, field) for field in ROWS}, n_classes=prepared.n_classes, descriptor=describe(prepared),
        )  # fmt: skip

    @property
    def prior_entropy(self) -> float:
        """Validation log-loss in nats of predicting the class frequencies of the training split."""
        frequencies = np.bincount(self.y_train, minlength=self.n_classes) / len(self.y_train)
        return float(-np.mean(np.log(frequencies[self.y_valid])))


class NamedSource(Protocol):
    """Where a data set comes from."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def base(self) -> str: ...  # noqa: D102


SourceT = TypeVar("SourceT", bound=NamedSource)


class TaskFamily(ABC, Generic[SourceT]):
    """A set of data sets under their names, in the order given. What they come from, and how it is read, is for subclasses to say."""

    kind: str = "data set"  # what messages call one of them
    descriptors: tuple[str, ...] = DESCRIPTORS  # the names of `DataSet.descriptor`

    def __init__(self, sources: Iterable[SourceT]):
        """Wrap sources, which are read when they are first asked for.

        Raises:
            DataError: if two share a name.
        """
        self._sources: dict[str, SourceT] = {}
        for source in sources:
            if source.name in self._sources:
                raise DataError(f"two of a family are called '{source.name}'; give each {self.kind} its own name.")
            self._sources[source.name] = source

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._sources)

    @property
    def absences(self) -> tuple[str, ...]:
        """A sentence on each source of tasks that cannot be had here: none but where a family says so."""
        return ()

    def info(self, name: str) -> SourceT:
        """Where a data set comes from.

        Raises:
            DataError: if the family holds none of that name.
        """
        if name not in self._sources:
            close = get_close_matches(str(name), self._sources, n=3) or list(self._sources)[:3]
            raise DataError(
                f"no {self.kind} is called {name!r} in this family of {len(self._sources)}; did you mean {' or '.join(close)}?"
            )
        return self._sources[name]

    def base(self, name: str) -> str:
        """The base data set behind a name."""
        return self.info(name).base

    def load(self, name: str) -> DataSet:
        """The preprocessed splits and the descriptor; cached.

        Raises:
            StoreError: if a file cannot be read.
            DataError: if the name is unknown, its package or base is absent, or what it stands for is no classification task.
        """
        return self.read(self.info(name))

    @abstractmethod
    def read(self, source: SourceT) -> DataSet:
        """What `load` returns."""

    def shape(self, name: str) -> TaskShape:
        """The padded shape of a data set that it shares with others of the family."""
        return shape_bucket(self.load(name))

    def task(self, name: str, shape: TaskShape | None = None) -> Task:
        """The data set as a task, padded to `shape` (default: that of its family)."""
        return to_task(self.load(name), self.shape(name) if shape is None else shape)


class CatalogueFamily(TaskFamily[Source]):
    """Data sets of the catalogue."""

    def base(self, name: str) -> str:
        """The base data set behind a name, also for names that only the catalogue knows."""
        return (self._sources.get(name) or _CATALOGUE.get(name) or self.info(name)).base

    def read(self, source: Source) -> DataSet:
        """The table of a package."""
        return _load(source)


_CATALOGUE: dict[str, Source] = {source.name: source for source in CATALOGUE}


def bundled() -> CatalogueFamily:
    """The four classification data sets that come with scikit-learn."""
    return CatalogueFamily(BUNDLED)


def tabular() -> CatalogueFamily:
    """The real data sets that do not come with scikit-learn, one per base.

    Raises:
        DataError: if one of the packages of the extra [datasets] is not installed.
    """
    for package in sorted({source.package for source in REAL}):
        require(package)
    return CatalogueFamily(REAL)


def stacked(family: TaskFamily, names: Sequence[str]) -> Task:
    """Data sets as one batch `[len(names), ...]`, padded to the largest of their shapes.

    Raises:
        DataError: if one cannot be read.
    """
    shape = TaskShape(*np.max([family.shape(name) for name in names], axis=0).tolist())
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[family.task(name, shape) for name in names])


def shape_bucket(data: DataSet) -> TaskShape:
    """The padded shape of a data set: one of four, so that few programs serve all.

    Rows are padded to their caps: this costs memory in training, where minibatches index real rows only, and some time
    in evaluation.

    Raises:
        DataError: if no bucket is large enough.
    """
    features = data.x_train.shape[1]
    few = data.n_classes <= FEW_CLASSES and features <= FEW_CLASSES_FEATURES
    least = features if few else max(features, FEW_CLASSES_FEATURES + 1)
    if features > FEATURE_BUCKETS[-1] or data.n_classes > MANY_CLASSES:
        raise DataError(
            f"data set '{data.name}' has {features} features and {data.n_classes} classes, but buckets hold at most "
            f"{FEATURE_BUCKETS[-1]} and {MANY_CLASSES}; pass a larger TaskShape."
        )
    width = next(bucket for bucket in FEATURE_BUCKETS if bucket >= least)
    return TaskShape(MAX_TRAIN_ROWS, MAX_EVAL_ROWS, width, FEW_CLASSES if few else MANY_CLASSES)


def to_task(data: DataSet, shape: TaskShape) -> Task:
    """Pad a data set to a shape.

    Raises:
        DataError: if the data set is larger than the shape.
    """
    sizes = TaskShape(
        len(data.y_train), max(len(data.y_valid), len(data.y_test)), data.x_train.shape[1], data.n_classes
    )
    for field, size, limit in zip(TaskShape._fields, sizes, shape, strict=True):
        if size > limit:
            raise DataError(
                f"data set '{data.name}' has {size} {field} but the shape holds {limit}; "
                f"pass a TaskShape with {field} >= {size}."
            )
    known = np.isfinite(data.descriptor)
    return Task(
        train=_pad(data.x_train, data.y_train, shape.rows, shape.features),
        valid=_pad(data.x_valid, data.y_valid, shape.eval_rows, shape.features),
        test=_pad(data.x_test, data.y_test, shape.eval_rows, shape.features),
        class_mask=jnp.arange(shape.classes, dtype=jnp.int32) < data.n_classes,
        n_features=jnp.asarray(sizes.features, jnp.int32),
        prior_entropy=jnp.asarray(data.prior_entropy, jnp.float32),
        descriptor=jnp.asarray(np.where(known, data.descriptor, 0.0), jnp.float32),
        descriptor_mask=jnp.asarray(known),
    )


def _pad(x: np.ndarray, y: np.ndarray, rows: int, features: int) -> Split:
    padded_x = np.zeros((rows, features), np.float32)
    padded_x[: len(x), : x.shape[1]] = x
    padded_y = np.zeros(rows, np.int32)
    padded_y[: len(y)] = y
    return Split(jnp.asarray(padded_x), jnp.asarray(padded_y), jnp.asarray(len(y), jnp.int32))


@cache
def _load(source: Source) -> DataSet:
    return DataSet.of(
        prepare(source.name, read(source)), name=source.name, base=source.base, source=f"{source.package} {source.item}",
        licence=source.licence, simulated=source.simulated, bundled=source.bundled,
    )  # fmt: skip
