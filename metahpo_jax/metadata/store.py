"""Meta-datasets on disk: a folder of Parquet tables, a strict JSON manifest that hashes them, and a provenance log.

manifest.json      schema version, space, points, and SHA-256 and size of each table
tasks.parquet      one row per task
configs.parquet    one row per configuration
curves.parquet     one row per (task, configuration, point)
provenance.jsonl   one line per entry: machine, wall time; no part of the content and not hashed
"""

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.errors import DataError, StoreError
from metahpo_jax.metadata import tables
from metahpo_jax.metadata.files import MAX_JSON_BYTES, read_bytes, strict_json, write_folder
from metahpo_jax.metadata.manifest import MANIFEST, Format, read_manifest, read_space, read_tables, require_folder, seal
from metahpo_jax.metadata.schema import MetaDataset

PROVENANCE = "provenance.jsonl"
DEFAULT = "tabular"
# Recorded by this project; `bundled`, on scikit-learn's own data sets, is what the demo looks trainings up in.
PACKAGED = (DEFAULT, "images", "bundled")
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
FORMAT = Format("metahpo_jax.metadataset", 1, _FIELDS, tables.NAMES, "meta-dataset", BUILD)


def save_metadataset(dataset: MetaDataset, directory: str | os.PathLike[str]) -> Path:
    """Writes a folder completely or not at all, in the place of an earlier meta-dataset if there is one.

    Raises:
      DataError: when the meta-dataset is not sound.
      StoreError: when the folder cannot be written or holds something else.
    """
    dataset.validate()
    facts = {
        "name": dataset.name,
        "unit": dataset.unit,
        "space": dataset.space.to_json(),
        "space_hash": dataset.space.hash,
        "fidelity": dataset.fidelity.tolist(),
        "descriptor_names": list(dataset.descriptor_names),
        "content_hash": dataset.content_hash,
    }
    files = seal(FORMAT, facts, tables.write(dataset))
    try:
        lines = [json.dumps(entry, sort_keys=True, allow_nan=False) + "\n" for entry in dataset.provenance]
    except (TypeError, ValueError) as error:
        raise DataError(f"{PROVENANCE}: entries must be plain JSON values ({error}); convert them.") from None
    files[PROVENANCE] = "".join(lines).encode()
    write_folder(Path(directory), files, marker=MANIFEST)
    return Path(directory)


def load_metadataset(directory_or_name: str | os.PathLike[str] | None = None, *, strict: bool = True) -> MetaDataset:
    """Reads a folder, or one of the meta-datasets that come with the package: "tabular" (also None), "images" or "bundled".

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
    require_folder(folder, BUILD)
    where = folder / MANIFEST
    manifest = read_manifest(folder, FORMAT)
    space = read_space(manifest["space"], f"{where}, space", BUILD)
    if space.hash != manifest["space_hash"]:
        raise StoreError(f"{where}, space_hash: the space is another one than the tables were made for; {BUILD} again.")
    contents = read_tables(folder, manifest, FORMAT)
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
        raise StoreError(f"{where}, content_hash: the tables hold something else; {BUILD} again.")
    return dataset


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
