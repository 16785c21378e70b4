"""Meta-datasets on disk: a folder of Parquet tables, a strict JSON manifest that hashes them, and a provenance log.

manifest.json      schema version, space, points, and SHA-256 and size of each table
tasks.parquet      one row per task
configs.parquet    one row per configuration
curves.parquet     one row per (task, configuration, point)
provenance.jsonl   one line per entry: machine, wall time; no part of the content and not hashed
"""

import json
import os
import stat
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax import __version__
from metahpo_jax.errors import DataError, SpaceError, StoreError
from metahpo_jax.metadata import tables
from metahpo_jax.metadata.files import MAX_JSON_BYTES, read_bytes, reason, sha256, strict_json, write_folder
from metahpo_jax.metadata.schema import MetaDataset
from metahpo_jax.spaces import Space

FORMAT = "metahpo_jax.metadataset"
VERSION = 1
MANIFEST = "manifest.json"
PROVENANCE = "provenance.jsonl"
DEFAULT = "tabular"
PACKAGED = (DEFAULT, "bundled")  # recorded by this project; the second is for reference on scikit-learn's own data sets
BUILD = "make it with `metahpo build --out FOLDER`"
_FIELDS = {
    "name": str,
    "unit": str,
    "space": dict,
    "space_hash": str,
    "fidelity": list,
    "descriptor_names": list,
    "content_hash": str,
    "files": dict,
}


def save_metadataset(dataset: MetaDataset, directory: str | os.PathLike[str]) -> Path:
    """Writes a folder completely or not at all, in the place of an earlier meta-dataset if there is one.

    Raises:
      DataError: when the meta-dataset is not sound.
      StoreError: when the folder cannot be written or holds something else.
    """
    dataset.validate()
    files = tables.write(dataset)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "unit": dataset.unit,
        "space": dataset.space.to_json(),
        "space_hash": dataset.space.hash,
        "fidelity": dataset.fidelity.tolist(),
        "descriptor_names": list(dataset.descriptor_names),
        "content_hash": dataset.content_hash,
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in files.items()},
        "writer": {"metahpo_jax": __version__, "pyarrow": tables.pyarrow_version()},
    }
    manifest["checksum"] = _checksum(manifest)
    files[MANIFEST] = (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()
    try:
        lines = [json.dumps(entry, sort_keys=True, allow_nan=False) + "\n" for entry in dataset.provenance]
    except (TypeError, ValueError) as error:
        raise DataError(f"{PROVENANCE}: entries must be plain JSON values ({error}); convert them.") from None
    files[PROVENANCE] = "".join(lines).encode()
    write_folder(Path(directory), files, marker=MANIFEST)
    return Path(directory)


def load_metadataset(directory_or_name: str | os.PathLike[str] | None = None, *, strict: bool = True) -> MetaDataset:
    """Reads a folder, or one of the meta-datasets that come with the package: "tabular" (also None) or "bundled".

    Args:
      directory_or_name: a folder that `save_metadataset` wrote.
      strict: refuse tasks with a constant objective, from which nothing can be learned.

    Raises:
      StoreError: when a file is missing, damaged, of a newer schema version, or leads out of the folder.
      DataError: when what the files hold is not sound. Both name file, field and row.
    """
    name = DEFAULT if directory_or_name is None else directory_or_name
    if name in PACKAGED:
        with resources.as_file(resources.files("metahpo_jax") / "data" / str(name)) as folder:
            if not (folder / MANIFEST).is_file():
                raise StoreError(f"{name}: the package comes without its meta-dataset; {BUILD} and give that folder.")
            return _load(folder, strict)
    return _load(Path(name), strict)


def _load(folder: Path, strict: bool) -> MetaDataset:
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(folder)!r}: cannot be opened ({reason(error)}); {BUILD} or correct the path.") from None
    if not is_folder:
        raise StoreError(f"{str(folder)!r}: expected a folder, got a file; {BUILD} or correct the path.")
    manifest = _read_manifest(folder)
    space = _read_space(folder, manifest)
    contents = {name: _read_verified(folder, name, manifest["files"].get(name)) for name in tables.NAMES}
    provenance = _read_provenance(folder)
    fidelity = np.asarray(manifest["fidelity"], np.float64)
    try:
        dataset = MetaDataset(
            name=manifest["name"],
            space=space,
            descriptor_names=tuple(manifest["descriptor_names"]),
            fidelity=fidelity,
            unit=manifest["unit"],
            provenance=provenance,
            **tables.read(contents, space, manifest["descriptor_names"], fidelity),
        )
        dataset.validate(strict=strict)
    except (DataError, StoreError) as error:
        raise type(error)(f"{folder}: {error}") from None
    if dataset.content_hash != manifest["content_hash"]:
        raise StoreError(f"{folder / MANIFEST}, content_hash: the tables hold something else; {BUILD} again.")
    return dataset


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that the manifest says beside its checksum; order counts, since a space is ordered."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return sha256(json.dumps(rest, separators=(",", ":"), ensure_ascii=True).encode())


def _read_manifest(folder: Path) -> dict[str, Any]:
    where = folder / MANIFEST
    manifest = strict_json(read_bytes(folder, MANIFEST, MAX_JSON_BYTES), str(where))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{where}, format: expected {FORMAT!r}; it is no meta-dataset: correct the path.")
    version = manifest.get("version")
    if type(version) is not int or version < 1:
        raise StoreError(f"{where}, version: expected a whole number from 1, got {version!r}; {BUILD} again.")
    if version > VERSION:
        raise StoreError(
            f"{where}, version: schema {version} is newer than {VERSION}, the newest that this release reads; "
            "upgrade metahpo-jax."
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise StoreError(f"{where}, checksum: the manifest was damaged or edited; copy it again or {BUILD}.")
    for field, kind in _FIELDS.items():
        if not isinstance(manifest.get(field), kind):
            raise StoreError(
                f"{where}, {field}: expected a {kind.__name__}, got {manifest.get(field)!r}; {BUILD} again."
            )
    for row, value in enumerate(manifest["fidelity"]):
        if type(value) not in (int, float) or not abs(value) < 2**63:
            raise StoreError(f"{where}, fidelity, row {row}: expected a number, got {value!r}; {BUILD} again.")
    for row, value in enumerate(manifest["descriptor_names"]):
        if not isinstance(value, str):
            raise StoreError(f"{where}, descriptor_names, row {row}: expected text, got {value!r}; {BUILD} again.")
    unknown = sorted(set(manifest["files"]) - set(tables.NAMES))
    if unknown:
        raise StoreError(
            f"{where}, files: unknown file {unknown[0]!r}; expected {', '.join(tables.NAMES)}: {BUILD} again."
        )
    return manifest


def _read_space(folder: Path, manifest: dict[str, Any]) -> Space:
    where = folder / MANIFEST
    try:
        space = Space.from_json(manifest["space"])
    except (SpaceError, TypeError, OverflowError) as error:
        raise StoreError(f"{where}, space: {error}; {BUILD} again.") from None
    if space.hash != manifest["space_hash"]:
        raise StoreError(f"{where}, space_hash: the space is another one than the tables were made for; {BUILD} again.")
    return space


def _read_verified(folder: Path, name: str, entry: Any) -> bytes:
    """Content of a table, whose size and hash are those of the manifest."""
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("size"), int)
        or not isinstance(entry.get("sha256"), str)
    ):
        raise StoreError(
            f"{folder / MANIFEST}, files: expected size and sha256 of {name!r}, got {entry!r}; {BUILD} again."
        )
    data = read_bytes(folder, name, tables.MAX_FILE_BYTES)
    if len(data) != entry["size"]:
        raise StoreError(
            f"{folder / name}: expected {entry['size']} bytes, got {len(data)}; copy the file again or {BUILD}."
        )
    if sha256(data) != entry["sha256"]:
        raise StoreError(f"{folder / name}: the SHA-256 differs from the manifest's; copy the file again or {BUILD}.")
    return data


def _read_provenance(folder: Path) -> tuple[dict[str, Any], ...]:
    """The log, or nothing where it was left out: nobody needs it to learn."""
    path = folder / PROVENANCE
    if not os.path.lexists(path):
        return ()
    entries = []
    for row, line in enumerate(read_bytes(folder, PROVENANCE, MAX_JSON_BYTES).splitlines()):
        entry = strict_json(line, f"{path}, row {row}")
        if not isinstance(entry, dict):
            raise StoreError(
                f"{path}, row {row}: expected an object, got {type(entry).__name__}; correct or delete the file."
            )
        entries.append(entry)
    return tuple(entries)
