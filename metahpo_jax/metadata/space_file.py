"""Search spaces in TOML: one table per hyperparameter, with the fields of `Space.from_json`.

[learning_rate]
type = "float"
low = 1e-4
high = 1.0
log = true

[momentum]
type = "float"
low = 0.0
high = 0.99
when = {optimiser = ["sgd"]}

[optimiser]
type = "choice"
values = ["sgd", "adam"]
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from metahpo_jax.errors import SpaceError, StoreError
from metahpo_jax.metadata.files import MAX_JSON_BYTES, read_user_file
from metahpo_jax.spaces import Space


def load_space(path: str | os.PathLike[str]) -> Space:
    """Reads the search space of a TOML file; the order of its tables is that of the coordinates.

    Raises:
      StoreError: when the file is missing, no regular file, or no TOML.
      SpaceError: naming the file, the hyperparameter and the field that is missing, unknown or of the wrong type.
    """
    data = read_user_file(Path(path), MAX_JSON_BYTES)
    try:
        description = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from None
    except (ValueError, RecursionError) as error:  # a whole number of too many digits, and tables in tables without end
        why = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise StoreError(
            f"{path}: not valid TOML ({why}); correct it, with a table [name] per hyperparameter."
        ) from None
    for name, row in description.items():
        if not isinstance(row, dict) or not isinstance(row.get("type"), str):
            raise SpaceError(f'{path}, [{name}]: expected a table with a type, as in type = "float", got {row!r:.80}.')
        # Alone and without its condition first, so that what is wrong with it names it.
        _space(f"{path}, [{name}]", {name: {field: value for field, value in row.items() if field != "when"}})
    return _space(str(path), description)


def _space(where: str, description: dict[str, Any]) -> Space:
    try:
        return Space.from_json(description)
    except (SpaceError, TypeError, OverflowError) as error:
        raise SpaceError(f"{where}: {error}") from None
