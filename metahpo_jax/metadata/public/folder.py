"""The folder of public tables: where each table lies, where it comes from, and how its files are read without trust."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.errors import StoreError

SOURCES = {
    "lcbench": "LCBench (automl/LCBench on GitHub: data_2k_lw.json) or its arrays in the PyPI wheel bocode",
    "svm": "the SVM table of nicoschilling/ECML2016 on GitHub as arrays, and the split of the MetaBO paper (ICLR 2020)",
    "taskset": "the TaskSet subset of releaunifreiburg/DPL on GitHub as arrays",
    "openml100": "the two ARFF files of janvanrijn/openml-pimp on GitHub with their tasks' qualities from OpenML",
    "hpob": "HPO-B (machinelearningnuremberg/HPO-B on GitHub) or its arrays in the PyPI wheel bocode",
}


def require(data: Path | None, name: str, files: Sequence[str]) -> Path:
    """The folder `data/name`, with all `files` in it.

    Raises:
        StoreError: No folder is given, or it lacks the table or one of its files; says what to get and where to put it.
    """
    if data is None:
        raise StoreError(
            f"{name} needs --data, the folder that holds {', '.join(f'{table}/' for table in SOURCES)}: "
            f"get {SOURCES[name]}, and put {' and '.join(files)} into {name}/ there."
        )
    folder = Path(data) / name
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise StoreError(f"{folder / missing[0]} is missing: get {SOURCES[name]}, and put {missing[0]} into {folder}.")
    return folder


def require_any(data: Path | None, name: str, files: Sequence[str]) -> Path:
    """The first of `files` that lies in `data/name`.

    Raises:
        StoreError: No folder is given, or it lacks them all; says what to get and where to put it.
    """
    present = [file for file in files if data is not None and (Path(data) / name / file).is_file()]
    file = present[0] if present else files[0]
    return require(data, name, (file,)) / file


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name; nothing in it is unpickled.

    Raises:
        StoreError: The file is damaged or holds pickled objects.
    """
    try:
        # NumPy leaves the file open where it finds damage, so that is not left to it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file of any size; NaN and Infinity are numbers, as the authors' Python wrote them.

    Raises:
        StoreError: The file is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: object) -> StoreError:
    """The sentence about a file that is not what it was published as."""
    reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
    return StoreError(f"{path} {reason}, so it is damaged or another file of that name: get {SOURCES[_table(path)]}.")


def _table(path: Path) -> str:
    return next(part for part in reversed(path.parts) if part in SOURCES)
