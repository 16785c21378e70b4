"""Parquet tables to and from bytes, trusting nothing: rows and sizes first, then columns, page checksums, nulls, texts.

Flat columns have a value a row, so a limit on rows is a limit on memory. A list column of 600 bytes may unfold into
200 MB, and asking pyarrow how much it holds aborts the process where the footer is damaged.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from metahpo_jax.errors import DataError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILE_BYTES = 64 * 2**20
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_TEXT = 4096  # characters of one value


def pyarrow_version() -> str:
    """Version of the library that writes the tables."""
    import pyarrow as pa

    return pa.__version__


def pack(columns: Mapping[str, Any], kinds: Mapping[str, str], measured: Collection[str]) -> bytes:
    """A table of the columns and Arrow types of `kinds`; `measured` ones hold numbers that hardly repeat."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    options: dict[str, Any] = {
        # The bytes of neighbouring numbers are alike place by place: splitting them saves an eighth of the size.
        "use_byte_stream_split": [name for name in kinds if name in measured],
        "use_dictionary": [name for name in kinds if name not in measured],
        "write_page_checksum": True,
    }
    sink = pa.BufferOutputStream()
    table = pa.Table.from_arrays(arrays, schema=schema)
    pq.write_table(table, sink, compression="zstd", compression_level=9, **options)
    return sink.getvalue().to_pybytes()


def unpack(name: str, data: bytes, kinds: Mapping[str, str], max_rows: int) -> "pa.Table":
    """A table of exactly the columns and Arrow types of `kinds`, without nulls.

    Raises:
      StoreError: when the file is no Parquet, has more rows than `max_rows`, or has damaged pages.
      DataError: naming file, column and row of what is missing, of another type or too long.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [column for column, kind in kinds.items() if kind == "string"]
    with damage_as_sentence(name):
        file = pq.ParquetFile(pa.BufferReader(data))
        check_size(name, file.metadata, max_rows)
        _check_columns(name, file.schema_arrow, kinds)
        # Texts stay dictionaries until their lengths are known.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, read_dictionary=texts)
        table = file.read(use_threads=False).combine_chunks()
        table.validate(full=True)
    for column in kinds:
        if table[column].null_count:
            row = int(np.argmax(table[column].is_null().to_numpy()))
            raise DataError(f"{name}, {column}, row {row}: expected a value, got null; use NaN for a missing number.")
    for column in texts:
        _check_texts(name, column, table[column])
        table = table.set_column(table.column_names.index(column), column, table[column].cast(pa.string()))
    return table


@contextmanager
def damage_as_sentence(name: str) -> Iterator[None]:
    """Turns what pyarrow says of a damaged file into a StoreError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{name}: no sound Parquet ({why}); copy the file again.") from None


def check_size(name: str, footer: Any, max_rows: int) -> None:
    """Raises a StoreError when a footer promises more rows than `max_rows`, or more bytes than memory should hold."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    rows = max(footer.num_rows, sum(group.num_rows for group in groups))
    size = sum(group.total_byte_size for group in groups)
    for what, got, most in (("rows", rows, max_rows), ("bytes when unpacked", size, MAX_UNPACKED_BYTES)):
        if not 0 <= got <= most:
            raise StoreError(f"{name}: expected at most {most} {what}, got {got}; check where the file comes from.")


def _check_columns(name: str, got: "pa.Schema", kinds: Mapping[str, str]) -> None:
    import pyarrow as pa

    for column, kind in kinds.items():
        if got.names.count(column) != 1:
            word = "missing" if column not in got.names else "there twice"
            raise DataError(f"{name}: column {column!r} is {word}; build the meta-dataset again.")
        found = got.field(column).type
        if found != pa.type_for_alias(kind):
            raise DataError(f"{name}, {column}: expected dtype {kind}, got {found}; cast it.")
    unknown = [column for column in got.names if column not in kinds]
    if unknown:
        raise DataError(f"{name}: unknown column {unknown[0]!r}; drop it.")


def _check_texts(name: str, column: str, values: "pa.ChunkedArray") -> None:
    for chunk in values.chunks:
        longest = max(map(len, chunk.dictionary.to_pylist()), default=0)
        if longest > MAX_TEXT:
            raise DataError(
                f"{name}, {column}: expected texts of at most {MAX_TEXT} characters, got {longest}; shorten them."
            )


def require_same(name: str, column: str, got: np.ndarray, expected: np.ndarray, remedy: str) -> None:
    """Raises a DataError that names the first row where a key column is not what its place asks for."""
    wrong = got != expected
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{name}, {column}, row {row}: expected {expected[row]}, got {got[row]}; {remedy}.")
