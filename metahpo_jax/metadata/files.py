"""Files that are whole or absent, and readers that trust nothing: sizes first, then hashes, then a strict parser."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metahpo_jax.errors import StoreError

MAX_JSON_BYTES = 4 * 2**20
MAX_JSON_DEPTH = 64


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def read_bytes(folder: Path, name: str, limit: int) -> bytes:
    """Content of the regular file `name` of `folder`.

    Raises:
      StoreError: when it is missing, unreadable, no regular file, longer than `limit` bytes, or a link out of `folder`.
    """
    path = folder / name
    try:
        real = Path(os.path.realpath(path, strict=True))
        if not real.is_relative_to(os.path.realpath(folder, strict=True)):
            raise StoreError(f"{path}: the link leads out of the folder; copy the file into it.")
        with open(real, "rb", opener=_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise StoreError(f"{path}: expected a regular file; write the meta-dataset again.")
            if facts.st_size > limit:
                raise StoreError(
                    f"{path}: expected at most {limit} bytes, got {facts.st_size}; check where it comes from."
                )
            return file.read(limit)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({reason(error)}); check the path or build it again.") from None


def read_user_file(path: Path, limit: int) -> bytes:
    """Content of a file that the user names, through links wherever they lead.

    Raises:
      StoreError: when it is missing, unreadable, a folder or other special file, or longer than `limit` bytes.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({reason(error)}); check the path.") from None
    if not real.is_file():
        raise StoreError(f"{path}: expected a file, got a {'folder' if real.is_dir() else 'device'}; name the file.")
    return read_bytes(real.parent, real.name, limit)


def _without_waiting(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe that somebody put in the file's place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def reason(error: OSError | ValueError) -> str:
    """What the operating system says, without its numbers and paths."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def strict_json(data: bytes, where: str) -> Any:
    """Parses JSON as the standard has it: UTF-8, no NaN or infinity, no key twice, at most `MAX_JSON_DEPTH` deep.

    Raises:
      StoreError: starting with `where`.
    """
    remedy = "write the file again"
    if len(data) > MAX_JSON_BYTES:
        raise StoreError(f"{where}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {len(data)}; {remedy}.")
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError and a whole number of too many digits among them
        raise StoreError(f"{where}: not valid JSON ({error}); {remedy}.") from None


def _check_depth(text: str) -> None:
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            in_string, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"duplicate key {key!r}")
        out[key] = value
    return out


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is beyond double precision")
    return value


def write_folder(folder: Path, files: Mapping[str, bytes], marker: str) -> None:
    """Writes a folder completely or not at all: beside it under a temporary name, synced, then renamed.

    An earlier folder is replaced if it is empty or holds the file `marker`, which says that it is one of ours.

    Raises:
      StoreError: when the place is taken by something else or cannot be written; nothing is left behind.
    """
    mark = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        target = Path(os.path.realpath(folder))
        fresh, old = (target.with_name(f"{target.name}.{kind}-{mark}") for kind in ("tmp", "old"))
        if target.exists() and not target.is_dir():
            raise StoreError(f"{folder}: a file is in the way; choose another folder.")
        if target.is_dir() and any(target.iterdir()) and not (target / marker).is_file():
            raise StoreError(f"{folder}: the folder holds other files and no {marker}; choose an empty or new folder.")
        with _removed_on_error(fresh):
            fresh.mkdir(parents=True)
            for name, data in files.items():
                _write_synced(fresh / name, data)
            _sync(fresh)
            _swap(fresh, target, old)
            _sync(target.parent)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be written ({reason(error)}); choose a folder that can.") from None


@contextlib.contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Puts `fresh` in the place of `target`, which steps aside first: folders are not renamed over full ones."""
    if not target.exists():
        fresh.rename(target)
        return
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
