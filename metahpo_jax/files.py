"""Writing files so that a crash never leaves half of one, and reading arrays so that damage is a sentence."""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from metahpo_jax.errors import StoreError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        StoreError: The directory does not exist and cannot be made, or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}): name a file in a directory that you may write."
        ) from error


def require_writable_file(path: Path) -> None:
    """Fails now, rather than after hours of work, if a file could not be written at `path`.

    Raises:
        StoreError: The path is a directory, or lies where nothing can be written.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a directory, but a file is written: name one inside it.")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    write_atomically(probe, b"")
    probe.unlink()


@contextlib.contextmanager
def read_arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of an .npz file, by name; nothing in it is unpickled.

    Raises:
        StoreError: The file is missing, truncated or damaged, or lacks an array that is asked for.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read ({error}): delete it and run the same command again.") from error
