"""The manifest of a folder of tables: strict JSON that says what the folder is and hashes every table and itself."""

import json
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metahpo_jax import __version__
from metahpo_jax.errors import SpaceError, StoreError
from metahpo_jax.metadata import parquet
from metahpo_jax.metadata.files import MAX_JSON_BYTES, read_bytes, reason, sha256, strict_json
from metahpo_jax.spaces import Space

MANIFEST = "manifest.json"


class Format(NamedTuple):
    """What a kind of folder is called, and what its manifest and tables must be."""

    name: str
    version: int  # the newest schema that this release reads, and the one that it writes
    fields: Mapping[str, type]
    tables: Collection[str]  # file names
    noun: str
    remedy: str  # what to do about a damaged one, as "make it with ..."


def seal(kind: Format, facts: Mapping[str, Any], tables: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of a folder: the tables and the manifest of `facts` that hashes them."""
    manifest: dict[str, Any] = {
        "format": kind.name,
        "version": kind.version,
        **facts,
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in tables.items()},
        "writer": {"metahpo_jax": __version__, "pyarrow": parquet.pyarrow_version()},
    }
    manifest["checksum"] = _checksum(manifest)
    return {**tables, MANIFEST: (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()}


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that the manifest says beside its checksum; order counts, since a space is ordered."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return sha256(json.dumps(rest, separators=(",", ":"), ensure_ascii=True).encode())


def require_folder(folder: Path, remedy: str) -> None:
    """Raises a StoreError when the path is no folder that can be opened."""
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{str(folder)!r}: cannot be opened ({reason(error)}); {remedy} or correct the path."
        ) from None
    if not is_folder:
        raise StoreError(f"{str(folder)!r}: expected a folder, got a file; {remedy} or correct the path.")


def format_of(folder: Path) -> str | None:
    """The format that a folder's manifest names, or None where there is no manifest that can be read."""
    try:
        manifest = strict_json(read_bytes(folder, MANIFEST, MAX_JSON_BYTES), MANIFEST)
    except StoreError:
        return None
    return manifest.get("format") if isinstance(manifest, dict) else None


def read_manifest(folder: Path, kind: Format) -> dict[str, Any]:
    """A manifest whose format, version, checksum and fields are as they must be.

    Raises:
      StoreError: naming the field.
    """
    where = folder / MANIFEST
    manifest = strict_json(read_bytes(folder, MANIFEST, MAX_JSON_BYTES), str(where))
    if not isinstance(manifest, dict) or manifest.get("format") != kind.name:
        raise StoreError(f"{where}, format: expected {kind.name!r}; it is no {kind.noun}: correct the path.")
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise StoreError(f"{where}, version: expected a whole number from 1, got {version!r}; {kind.remedy} again.")
    if version > kind.version:
        raise StoreError(
            f"{where}, version: schema {version} is newer than {kind.version}, the newest that this release reads; "
            "upgrade metahpo-jax."
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise StoreError(f"{where}, checksum: the manifest was damaged or edited; copy it again or {kind.remedy}.")
    for field, expected in kind.fields.items():
        if not isinstance(manifest.get(field), expected):
            got = manifest.get(field)
            raise StoreError(f"{where}, {field}: expected a {expected.__name__}, got {got!r}; {kind.remedy} again.")
    for row, value in enumerate(manifest["fidelity"]):
        if type(value) not in (int, float) or not abs(value) < 2**63:
            raise StoreError(f"{where}, fidelity, row {row}: expected a number, got {value!r}; {kind.remedy} again.")
    for row, value in enumerate(manifest["descriptor_names"]):
        if not isinstance(value, str):
            raise StoreError(
                f"{where}, descriptor_names, row {row}: expected text, got {value!r}; {kind.remedy} again."
            )
    unknown = sorted(set(manifest["files"]) - set(kind.tables))
    if unknown:
        raise StoreError(
            f"{where}, files: unknown file {unknown[0]!r}; expected {', '.join(kind.tables)}: {kind.remedy} again."
        )
    return manifest


def read_space(description: Any, where: str, remedy: str) -> Space:
    """A space of a manifest.

    Raises:
      StoreError: starting with `where`.
    """
    try:
        return Space.from_json(description)
    except (SpaceError, TypeError, OverflowError) as error:
        raise StoreError(f"{where}: {error}; {remedy} again.") from None


def read_tables(folder: Path, manifest: Mapping[str, Any], kind: Format) -> dict[str, bytes]:
    """Content of every table, whose size and hash are those of the manifest, by file name."""
    return {name: _read_verified(folder, name, manifest["files"].get(name), kind.remedy) for name in kind.tables}


def _read_verified(folder: Path, name: str, entry: Any, remedy: str) -> bytes:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("size"), int)
        or not isinstance(entry.get("sha256"), str)
    ):
        raise StoreError(
            f"{folder / MANIFEST}, files: expected size and sha256 of {name!r}, got {entry!r}; {remedy} again."
        )
    data = read_bytes(folder, name, parquet.MAX_FILE_BYTES)
    if len(data) != entry["size"]:
        raise StoreError(
            f"{folder / name}: expected {entry['size']} bytes, got {len(data)}; copy the file again or {remedy}."
        )
    if sha256(data) != entry["sha256"]:
        raise StoreError(f"{folder / name}: the SHA-256 differs from the manifest's; copy the file again or {remedy}.")
    return data
