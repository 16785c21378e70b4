"""Columns of a user's CSV or Parquet file as text, so that the search space and not the file decides what a cell means.

CSV readers guess types: a choice "1" becomes a number, `no` a truth value, `1e-3` a text. Here every cell stays the text
that it is, and is parsed once per distinct text.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metahpo_jax.errors import DataError, StoreError
from metahpo_jax.metadata.files import read_user_file
from metahpo_jax.metadata.parquet import MAX_TEXT, check_size, damage_as_sentence

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 256 * 2**20
MAX_ROWS = 4_000_000


class Column(NamedTuple):
    """One column of `R` rows."""

    where: str  # path of the file
    name: str
    codes: np.ndarray  # `[R]` int, index of each cell's text
    texts: list[str]  # distinct cells without surrounding blanks; empty text where there is no value

    def error(self, row: int, complaint: str) -> DataError:
        """The error that names file, row (counted from 1, the header left out), column and value."""
        text = self.texts[self.codes[row]]
        got = "an empty cell" if not text else repr(text if len(text) <= 40 else f"{text[:40]}...")
        return DataError(f"{self.where}, row {row + 1}, column {self.name!r}: got {got}; {complaint}.")

    def parse(self, reader: Callable[[str], float]) -> np.ndarray:
        """Numbers `[R]` float64. `reader` raises a ValueError with a complaint."""
        values, complaints = self.attempt(reader)
        self.refuse(complaints, np.ones(len(self.codes), bool))
        return values[self.codes]

    def attempt(self, reader: Callable[[str], float]) -> tuple[np.ndarray, dict[int, str]]:
        """Number of each text, NaN where there is a complaint, and the complaints by the text's index."""
        values, complaints = np.full(len(self.texts), np.nan), {}
        for i, text in enumerate(self.texts):
            try:
                values[i] = reader(text)
            except (ValueError, OverflowError) as error:
                complaints[i] = str(error).rstrip(".")
        return values, complaints

    def refuse(self, complaints: dict[int, str], counts: np.ndarray) -> None:
        """Raises for the first row of `counts [R]` whose text has a complaint."""
        wrong = np.isin(self.codes, list(complaints)) & counts
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self.error(row, complaints[int(self.codes[row])])


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Column]:
    """The named columns of a file, by name.

    Raises:
      StoreError: when the file is missing, damaged, no CSV or Parquet, or larger than the limits.
      DataError: when a column is missing or there twice, a row has too few or too many cells, or there is no row.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".pq": _read_parquet}
    if path.suffix.lower() not in readers:
        raise StoreError(f"{path}: expected a name that ends in .csv or .parquet; convert or unpack the file.")
    table = readers[path.suffix.lower()](path, read_user_file(path, MAX_BYTES), names)
    if not table.num_rows:
        raise DataError(f"{path}: expected a row per run, got none; record some.")
    if table.num_rows > MAX_ROWS:
        raise StoreError(f"{path}: expected at most {MAX_ROWS} rows, got {table.num_rows}; split the file by task.")
    return {name: _encode(path, name, table[name]) for name in names}


def _encode(path: Path, name: str, cells: "pa.ChunkedArray") -> Column:
    """Texts in the order of their first row. Dictionaries are not unfolded: a long text in every row would fill the memory."""
    import pyarrow as pa

    if not pa.types.is_dictionary(cells.type):
        cells = cells.cast(pa.string()).dictionary_encode()
    array = pa.concat_arrays(cells.unify_dictionaries().chunks)
    raw = [(text or "").strip() for text in [*array.dictionary.cast(pa.string()).to_pylist(), None]]
    index: dict[str, int] = {}
    for i, text in enumerate(raw):
        index.setdefault(text, i)  # blanks aside, two entries may be one text
    codes = np.asarray([index[text] for text in raw])[array.indices.fill_null(len(raw) - 1).to_numpy()]
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    column = Column(str(path), name, np.argsort(order)[inverse], [raw[code] for code in used[order]])
    long = {i: f"shorten it to {MAX_TEXT} characters" for i, text in enumerate(column.texts) if len(text) > MAX_TEXT}
    column.refuse(long, np.ones(len(column.codes), bool))
    return column


def _check_names(path: Path, got: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if name not in got:
            near = get_close_matches(name, got, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"its columns are {', '.join(map(repr, got))[:200]}."
            raise DataError(f"{path}: column {name!r} is missing; {hint}")
        if list(got).count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there twice; rename one.")


def _read_csv(path: Path, data: bytes, names: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StoreError(f"{path}, line {line}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from None
    uneven: list[str] = []

    def complain(row: csv.InvalidRow) -> str:
        uneven.append(f"row {row.number - 1}: expected {row.expected_columns} cells, got {row.actual_columns}")
        return "error"

    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            # One block: rows may then be of any length, and their numbers are known.
            read_options=csv.ReadOptions(use_threads=False, block_size=max(len(data), 1) + 1),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=complain),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if uneven:
            raise DataError(f"{path}, {uneven[0]}; quote cells that hold commas.") from None
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path}: no CSV with a header ({why}); write it with commas between the cells.") from None
    _check_names(path, table.column_names, names)
    return table


def _read_parquet(path: Path, data: bytes, names: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    with damage_as_sentence(str(path)):
        file = pq.ParquetFile(pa.BufferReader(data))
        check_size(str(path), file.metadata, MAX_ROWS)
        schema = file.schema_arrow
        _check_names(path, schema.names, names)
        for name in names:
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise DataError(f"{path}, column {name!r}: expected numbers or texts, got {kind}; unpack it.")
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, read_dictionary=list(names))
        table = file.read(columns=list(names), use_threads=False)
        table.validate(full=True)
    return table
