"""One's own CSV files as a task family: each file is one classification task, called as the file.

A file is UTF-8 with commas between the cells and a header. A column is numeric where every filled cell is a number, and
categorical otherwise. Cells that are empty or one of `MISSING` are missing values.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metahpo_jax.errors import DataError, StoreError
from metahpo_jax.tasks.family import MANY_CLASSES, DataSet, TaskFamily
from metahpo_jax.tasks.preprocess import MAX_CATEGORIES, Column, RawTable, prepare

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})  # in lower case; "none" may well be a category
MAX_BYTES = 64 * 2**20
MAX_NAME = 128
MAX_TEXT = 256  # characters of a cell
_TYPO_SHARE = 0.9  # of the filled cells: where so many are numbers, the others are taken for mistakes


@dataclass(frozen=True)
class CsvSource:
    """One file and how it is read; `target` is the last column where it is None."""

    path: Path
    target: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending: the name of the task, and its base data set."""
        return self.path.stem

    base = name


class CsvFamily(TaskFamily[CsvSource]):
    """The tasks of CSV files: each file stands for a base data set of its own."""

    kind = "task"

    def __init__(self, sources: Iterable[CsvSource]):
        """Wrap sources, whose files are read when they are first asked for.

        Raises:
            DataError: if two files share a name, or a name cannot be that of a task.
        """
        paths: dict[str, Path] = {}
        for source in (sources := list(sources)):
            _check_name(source)
            if source.name in paths:
                raise DataError(
                    f"{source.path}: a task is called {source.name!r} already, after {paths[source.name]}; rename one of the files."
                )
            paths[source.name] = source.path
        super().__init__(sources)

    def read(self, source: CsvSource) -> DataSet:
        """The task of a file."""
        return _load(source)


def csv_family(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | None = None,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> CsvFamily:
    """The family of a folder's CSV files, by name, or of the files of a list.

    Every file counts as a base data set of its own. Keep one of several versions of the same data: a split would put
    one version on each side.

    Args:
        files: a folder, one file, or a list of files; all end in .csv.
        target: column of the label in every file; by default the last one.
        drop: columns to leave out of the files that have them, such as identifiers.
        categorical: columns whose numbers are names, such as postal codes, in the files that have them.

    Raises:
        StoreError: if a file or the folder does not exist.
        DataError: if there is no CSV file, or two share a name.
    """
    paths = _in_folder(Path(files)) if isinstance(files, (str, os.PathLike)) else [Path(file) for file in files]
    if not paths:
        raise DataError("csv_family: expected at least one file, got an empty list; name some.")
    for path in paths:
        if path.suffix.lower() != ".csv":
            raise DataError(f"{path}: expected a name that ends in .csv; convert or unpack the file.")
        if not path.is_file():
            raise StoreError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'none'}; check the path.")
    return CsvFamily(CsvSource(path, target, tuple(drop), tuple(categorical)) for path in paths)


def _in_folder(path: Path) -> list[Path]:
    """The CSV files of a folder, hidden ones left out; a path that is no folder stands for itself."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith("."))
    if not found:
        raise DataError(f"{path}: expected .csv files in this folder, got none; check the path and their endings.")
    return found


def _check_name(source: CsvSource) -> None:
    """Names of tasks become file names of a meta-dataset's parts: refused now rather than when all are trained."""
    name = source.name
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable() or ".." in name:
        raise DataError(
            f"{source.path}: expected a file name of at most {MAX_NAME} printable characters without two dots in a row, "
            "since the task is called after it; rename the file."
        )


@cache
def _load(source: CsvSource) -> DataSet:
    content = _content(source.path)
    try:
        prepared = prepare(source.name, parse(source, content))
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(str(source.path)) else f"{source.path}: {error}") from None
    digest = hashlib.sha256(content).hexdigest()[:16]
    return DataSet.of(
        prepared, name=source.name, base=source.base, source=f"{source.path.name} sha256:{digest}", licence="not stated"
    )


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: expected at most {MAX_BYTES >> 20} MiB, got {size >> 20}; draw some thousand rows at random, "
                "since more are not used."
            )
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(f"{path}: cannot be read ({reason}); check the path.") from None


def parse(source: CsvSource, content: bytes) -> RawTable:
    """The raw table of a file's content.

    Raises:
        DataError: naming the file and the line, row (counted from 1, the header left out) or column that is wrong.
    """
    path = source.path
    _check_text(path, content)
    names = _header(path, content)
    if source.target is not None and source.target not in names:
        raise _absent(path, source.target, names)
    target = names[-1] if source.target is None else source.target
    if target in source.drop:
        raise DataError(f"{path}: column {target!r} is the target and cannot be dropped; name another target.")
    features = [name for name in names if name != target and name not in source.drop]
    if not features:
        raise DataError(f"{path}: expected columns beside the target {target!r}, got none; add some.")
    table = _cells(path, content, names)
    texts = {name: _texts(path, name, table[name]) for name in (*features, target)}
    columns = [_column(path, name, texts[name], name in source.categorical) for name in features]
    return RawTable(tuple(columns), _labels(path, target, texts[target]))


def _check_text(path: Path, content: bytes) -> None:
    if not content.strip():
        raise DataError(f"{path}: expected a header and rows, got an empty file; fill it or take it away.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from None
    if (nul := content.find(0)) >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}, line {line}: holds a NUL byte (byte {nul}), so it is no text; export it again.")


def _header(path: Path, content: bytes) -> list[str]:
    """Names of the columns."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    try:
        names = [name.strip() for name in next(row for row in csv.reader(text) if row)]
    except (csv.Error, StopIteration) as error:
        raise DataError(f"{path}: expected a header of column names ({error or 'there is none'}); add one.") from None
    if len(names) == 1:
        other = next((repr(mark) for mark in ";\t|" if mark in names[0]), None)
        found = f"cells seem to be separated by {other}" if other else "got one column"
        raise DataError(f"{path}: expected feature columns and a label, but {found}; separate the cells by commas.")
    for i, name in enumerate(names, start=1):
        if not name:
            raise DataError(
                f"{path}: column {i} has no name; name it, or delete it if it counts rows, since their order may give "
                "the label away."
            )
        if "." in name and _number(name) is not None:
            raise DataError(f"{path}: the first row holds the number {name}, so it is no header; put one above it.")
        if names.index(name) < i - 1:
            raise DataError(f"{path}: columns {names.index(name) + 1} and {i} are both called {name!r}; rename one.")
    return names


def _absent(path: Path, target: str, names: list[str]) -> DataError:
    near = get_close_matches(target, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"its columns are {', '.join(map(repr, names))[:200]}."
    return DataError(f"{path}: column {target!r}, the target, is missing; {hint}")


def _cells(path: Path, content: bytes, names: list[str]) -> "pa.Table":
    """All cells as text: readers that guess types would make a date of one column and a truth value of another."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    uneven: list[str] = []

    def complain(row: arrow.InvalidRow) -> str:
        where = "" if row.number is None else f", row {row.number - 1}"
        uneven.append(f"{path}{where}: expected {row.expected_columns} cells, got {row.actual_columns}")
        return "error"

    try:
        table = arrow.read_csv(
            pa.BufferReader(content),
            # One block: rows may then be of any length, and their numbers are known.
            read_options=arrow.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=names),
            parse_options=arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=complain),
            convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowException as error:
        if uneven:
            raise DataError(f"{uneven[0]}; quote cells that hold commas, and close every quote.") from None
        raise DataError(f"{path}: no CSV ({str(error).splitlines()[0]}); write it again.") from None
    if table.num_rows < 2:
        raise DataError(f"{path}: expected rows below the header, got none; add some or take the file away.")
    return table.slice(1)  # with `column_names`, the header is read as the first row


def _texts(path: Path, name: str, cells: "pa.ChunkedArray") -> np.ndarray:
    """Cells without surrounding blanks, str `[n]`, "" where missing; each distinct text is looked at once."""
    import pyarrow as pa

    array = pa.concat_arrays(cells.chunks).dictionary_encode()
    codes = array.indices.to_numpy()
    texts = [text.strip() for text in array.dictionary.to_pylist()]
    long = np.array([len(text) > MAX_TEXT for text in texts])[codes]
    if long.any():
        row = int(np.argmax(long))
        raise DataError(
            f"{path}, row {row + 1}, column {name!r}: expected at most {MAX_TEXT} characters, got "
            f"{len(texts[codes[row]])}; free text is not learned from, so name the column in `drop`."
        )
    return np.array(["" if text.lower() in MISSING else text for text in texts], str)[codes]


def _number(text: str) -> float | None:
    """The number that a text is, if it is one; Python's 1_000 is none, since codes look like it."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _numbers(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value `[n]` float64 of each text, NaN where it is no finite number, and whether it is filled but no number."""
    distinct, inverse = np.unique(texts, return_inverse=True)
    parsed = [np.nan if text == "" else _number(text) for text in distinct]
    values = np.array([np.nan if value is None or np.isinf(value) else value for value in parsed])
    return values[inverse], np.array([value is None for value in parsed])[inverse]


def _column(path: Path, name: str, texts: np.ndarray, categorical: bool) -> Column:
    if categorical:
        return Column(name, texts, True)
    values, other = _numbers(texts)
    if not other.any():
        return Column(name, values, False)
    numbers = values[np.isfinite(values)]
    mostly = len(numbers) >= _TYPO_SHARE * (len(numbers) + other.sum())
    if mostly and len(np.unique(numbers)) > MAX_CATEGORIES:  # fewer may be codes such as 1, 2 and 3a
        row = int(np.argmax(other))
        raise DataError(
            f"{path}, row {row + 1}, column {name!r}: expected a number, as in {len(numbers)} other cells, got "
            f"{_shown(str(texts[row]))}; correct or empty the cell, or name the column in `categorical`."
        )
    return Column(name, texts, True)


def _labels(path: Path, target: str, texts: np.ndarray) -> np.ndarray:
    """Labels as str `[n]`; 1, 1.0 and 01 are one class where all labels are numbers."""
    values, other = _numbers(texts)
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if known.any() and not other.any():
        if len(distinct) > MANY_CLASSES:
            raise DataError(
                f"{path}, column {target!r}: expected a class label, got {len(distinct)} different numbers, which looks "
                f"like regression; name another target, or cut it into at most {MANY_CLASSES} classes."
            )
        names = np.array([repr(float(value)).removesuffix(".0") for value in distinct])
        texts = np.where(known, names[np.searchsorted(distinct, np.where(known, values, distinct[0]))], "")
    classes = sorted(set(texts.tolist()) - {""})
    if len(classes) < 2:
        got = f"{_shown(classes[0])} only" if classes else "empty cells only"
        raise DataError(f"{path}, column {target!r}: expected at least two classes, got {got}; name another target.")
    return texts


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
