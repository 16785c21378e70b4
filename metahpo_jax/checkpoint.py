"""Checkpoints: any pytree of arrays as one safetensors file whose hash is verified before anything in it is parsed.

The file is an ordinary safetensors file that any reader of the format opens. Its JSON header begins with the SHA-256
of the file, taken with the 64 digits themselves as zeros; so the digest stands at a fixed place and is checked
without a parser. The manifest (schema version, kind, identity, metadata, implementations of random keys, versions of
the libraries) is strict JSON inside the header: with a single file, renamed into place, a crash leaves the old
checkpoint or the new one. The hash finds damage, not forgery; hostile content meets strict parsers.
"""

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from metahpo_jax import __version__
from metahpo_jax.base import PyTree
from metahpo_jax.errors import CheckpointError, StoreError
from metahpo_jax.files import write_atomically
from metahpo_jax.metadata.files import MAX_JSON_BYTES, reason, strict_json

FORMAT = "metahpo_jax.checkpoint"
VERSION = 1
MAX_BYTES = 2**32

_DTYPES = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    "bool": "BOOL",
}
_OPENING = b'{"__metadata__":{"sha256":"'
_BLANK = "0" * 64
_DIGEST = slice(8 + len(_OPENING), 8 + len(_OPENING) + len(_BLANK))  # of the file: 8 bytes of header size come first
_ROOT = "value"  # the name of a tree that is a single array
_FIELDS = {"format": str, "version": int, "kind": str, "identity": dict, "metadata": dict, "keys": dict, "writer": dict}


def save_checkpoint(
    path: str | os.PathLike[str], tree: PyTree, *, kind: str, identity: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None, allow_nonfinite: bool = False,
) -> None:  # fmt: skip
    """Writes a pytree to one file, in the place of an earlier checkpoint; a crash leaves the old file or the new one.

    Args:
      path: of the file; its folder is made where it is missing.
      tree: arrays of bool, int, uint or float types (no bfloat16: cast it to float32), and typed random keys.
      kind: what the tree is for, such as "fit"; a loader must name the same.
      identity: JSON values that tell this checkpoint from others of its kind, such as the hash of the space.
      metadata: JSON values that come along.
      allow_nonfinite: write NaN and infinity too.

    Raises:
      CheckpointError: when the tree or the JSON cannot be stored, or the file cannot be written.
    """
    path = Path(path)
    arrays, keys = {}, {}
    for name, leaf in _named_leaves(tree).items():
        if _is_key(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        arrays[name] = np.asarray(leaf)
        if arrays[name].dtype.name not in _DTYPES:
            raise CheckpointError(
                f"save_checkpoint: {name!r} has type {arrays[name].dtype}, expected one of {', '.join(_DTYPES)}; "
                "cast it first (bfloat16 to float32)."
            )
    _check_finite(arrays, f"save_checkpoint: {path}", allow_nonfinite)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "identity": dict(identity),
        "metadata": dict(metadata or {}),
        "keys": keys,
        "writer": {"metahpo_jax": __version__, "jax": jax.__version__, "numpy": np.__version__},
    }
    content = _encode(arrays, _to_json(manifest, path))
    try:
        write_atomically(path, content)
    except StoreError as error:
        raise CheckpointError(str(error)) from error


def load_checkpoint(
    path: str | os.PathLike[str], *, kind: str, identity: Mapping[str, Any] | None = None, like: PyTree = None,
    allow_nonfinite: bool = False,
) -> tuple[PyTree, dict[str, Any]]:  # fmt: skip
    """Reads what `save_checkpoint` wrote: the tree, its leaves NumPy arrays and typed random keys, and the metadata.

    Args:
      path: of a regular file; no link is followed.
      kind: as it was saved.
      identity: as it was saved; None accepts any.
      like: a pytree of arrays, or of `jax.ShapeDtypeStruct`, with the structure, shapes and types that are expected.
        Without one, the tree is a flat mapping from names to leaves, which `restore` puts into a structure.
      allow_nonfinite: accept NaN and infinity.

    Raises:
      CheckpointError: when the file is missing, damaged, no checkpoint, of a newer schema, or of another kind,
        identity or structure.
    """
    path = Path(path)
    content = _read(path)
    header = _verify(path, content)
    try:
        manifest = strict_json(strict_json(header, f"{path}: header")["__metadata__"]["manifest"].encode(), f"{path}")
        _check_manifest(path, manifest)
        _check_same(path, "kind", manifest["kind"], kind)
        if identity is not None:
            _check_same(path, "identity", manifest["identity"], json.loads(_to_json(dict(identity), path)))
        arrays = safetensors.numpy.load(content)
        _check_finite(arrays, str(path), allow_nonfinite)
        leaves = {
            name: jax.random.wrap_key_data(jnp.asarray(array), impl=manifest["keys"][name])
            if name in manifest["keys"]
            else array
            for name, array in arrays.items()
        }
    except CheckpointError:
        raise
    except StoreError as error:
        raise CheckpointError(str(error)) from None
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is not sound ({error}); take the file from its source again.") from None
    return (leaves if like is None else restore(leaves, like, str(path))), manifest["metadata"]


def restore(leaves: Mapping[str, Any], like: PyTree, where: str) -> PyTree:
    """Puts leaves by name into the structure of `like`; `where` opens the sentence of an error.

    Raises:
      CheckpointError: when names, shapes or types differ.
    """
    wanted = _named_leaves(like)
    remedy = "it belongs to another model or version: build the model as it was saved, or name another file"
    if missing := sorted(wanted.keys() - leaves.keys()):
        raise CheckpointError(f"{where}: lacks {_some(missing)}; {remedy}.")
    if extra := sorted(leaves.keys() - wanted.keys()):
        raise CheckpointError(f"{where}: holds {_some(extra)}, which nothing expects; {remedy}.")
    for name, leaf in wanted.items():
        expected, found = _describe(leaf), _describe(leaves[name])
        if expected != found:
            raise CheckpointError(f"{where}: {name!r} is {found}, expected {expected}; {remedy}.")
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])


def _encode(arrays: Mapping[str, np.ndarray], manifest: str) -> bytes:
    """The bytes of the file. The widest types come first, so that every tensor starts at a multiple of its item
    size."""
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    tensors = [arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False).tobytes() for name in names]
    header: dict[str, Any] = {"__metadata__": {"sha256": _BLANK, "manifest": manifest}}
    offset = 0
    for name, tensor in zip(names, tensors, strict=True):
        span = [offset, offset + len(tensor)]
        header[name] = {"dtype": _DTYPES[arrays[name].dtype.name], "shape": arrays[name].shape, "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_JSON_BYTES or offset > MAX_BYTES - MAX_JSON_BYTES:
        raise CheckpointError(
            f"save_checkpoint: expected at most {MAX_JSON_BYTES} bytes of names and metadata and {MAX_BYTES} in all, "
            f"got {len(text)} and {len(text) + offset}; store less, or in several files."
        )
    content = b"".join([struct.pack("<Q", len(text)), text, *tensors])
    return content[: _DIGEST.start] + _digest(content).encode() + content[_DIGEST.stop :]


def _digest(content: bytes) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[: _DIGEST.start])
    digest.update(_BLANK.encode())
    digest.update(view[_DIGEST.stop :])
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    remedy = "name a checkpoint file"
    # A link is not followed, and a pipe in the file's place is not waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise CheckpointError(f"{path}: expected a regular file; {remedy}.")
            if facts.st_size > MAX_BYTES:
                raise CheckpointError(f"{path}: expected at most {MAX_BYTES} bytes, got {facts.st_size}; {remedy}.")
            return file.read(MAX_BYTES)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise CheckpointError(f"{path}: expected a regular file, got a link; name the file it leads to.") from None
        raise CheckpointError(f"{path}: cannot be read ({reason(error)}); {remedy} that exists.") from None


def _verify(path: Path, content: bytes) -> bytes:
    """The header's JSON, once the hash of the whole file is right."""
    if content[8 : _DIGEST.start] != _OPENING:
        raise CheckpointError(f"{path}: is no checkpoint of this library; name a file that save_checkpoint wrote.")
    size = struct.unpack("<Q", content[:8])[0]
    if size > min(MAX_JSON_BYTES, len(content) - 8):
        raise CheckpointError(
            f"{path}: is cut off or damaged, its header should have {size} bytes; take the file from its source again."
        )
    if content[_DIGEST] != _digest(content).encode():
        raise CheckpointError(
            f"{path}: is cut off or damaged, its SHA-256 does not match its content; take the file from its source "
            "again, or delete it and train anew."
        )
    return content[8 : 8 + size]


def _check_manifest(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: holds no manifest of {FORMAT}; name a file that save_checkpoint wrote.")
    version = manifest.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path}: has schema version {version}, this metahpo_jax reads up to {VERSION}; upgrade metahpo_jax."
        )
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{path}: its manifest lacks or misuses {_some(wrong)}; take it from its source again.")


def _check_same(path: Path, field: str, found: Any, expected: Any) -> None:
    if found == expected:
        return
    if isinstance(found, dict):  # name only what differs
        differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        found, expected = ({name: side.get(name) for name in differing} for side in (found, expected))
    raise CheckpointError(
        f"{path}: its {field} is {_brief(found)}, expected {_brief(expected)}; name another file, or delete "
        "this one to start anew."
    )


def _check_finite(arrays: Mapping[str, np.ndarray], where: str, allowed: bool) -> None:
    if allowed:
        return
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(
                f"{where}: {name!r} holds NaN or infinity; train without divergence, or pass allow_nonfinite=True."
            )


def _to_json(value: Any, path: Path) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: identity and metadata must be plain JSON values ({error}); convert them."
        ) from None


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or _ROOT
        if name in named or name == "__metadata__":
            raise CheckpointError(f"checkpoint: two arrays of the tree would be named {name!r}; rename a field.")
        named[name] = leaf
    return named


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf: Any) -> str:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
