"""A checkpoint comes back as it was or is refused by a sentence: there is nothing in between."""

import json
import os
import struct
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from metahpo_jax import checkpoint
from metahpo_jax.checkpoint import load_checkpoint, restore, save_checkpoint
from metahpo_jax.errors import CheckpointError


class Pair(NamedTuple):
    left: jax.Array
    right: np.ndarray


def make_tree(dtype=jnp.float32):
    weights = {"w": jnp.arange(6, dtype=dtype).reshape(2, 3), "b": jnp.asarray(-0.0, dtype)}
    return {
        "theta": weights,
        "opt": optax.adam(0.1).init(weights),
        "keys": jax.random.split(jax.random.key(3), 2),
        "rbg": jax.random.key(4, impl="rbg"),
        "pair": Pair(jnp.asarray([True, False]), np.zeros((0, 3), np.int8)),
        "wide": np.asarray([2**63 - 1, -(2**63)], np.int64),
    }


def data_of(tree):
    return jax.tree.map(
        lambda x: np.asarray(jax.random.key_data(x)) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x),
        tree,
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
    for a, b in zip(jax.tree.leaves(data_of(found)), jax.tree.leaves(data_of(expected)), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "run.safetensors"


def save(path, tree, **settings):
    save_checkpoint(path, tree, **{"kind": "test", "identity": {"space": "abc"}, **settings})


def test_a_tree_comes_back_bit_by_bit(path):
    tree = make_tree()
    save(path, tree, metadata={"step": 3, "names": ("a", "ü")})
    found, metadata = load_checkpoint(path, kind="test", identity={"space": "abc"}, like=make_tree())
    assert_same(found, tree)
    assert metadata == {"step": 3, "names": ["a", "ü"]}
    assert jax.random.uniform(found["rbg"]) == jax.random.uniform(tree["rbg"])
    assert os.listdir(path.parent) == [path.name]


def test_float64_and_a_single_array(path, x64):
    save(path, jnp.asarray(1 / 3, jnp.float64))
    assert load_checkpoint(path, kind="test")[0] == {"value": 1 / 3}
    assert load_checkpoint(path, kind="test", like=jnp.float64(0))[0].dtype == np.float64


def test_any_reader_of_safetensors_opens_the_file(path):
    save(path, make_tree())
    arrays = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays["theta/w"], make_tree()["theta"]["w"])
    assert arrays["pair/right"].shape == (0, 3)


def test_equal_trees_make_equal_files(path):
    save(path, make_tree())
    first = path.read_bytes()
    save(path, make_tree())
    assert path.read_bytes() == first


def test_without_like_the_leaves_come_by_name(path):
    save(path, make_tree())
    leaves, _ = load_checkpoint(path, kind="test")
    assert {"theta/w", "opt/0/mu/b", "keys", "pair/left"} <= set(leaves)
    assert_same(restore(leaves, make_tree(), "here"), make_tree())


def change(**changes):
    return {**make_tree(), **changes}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (change(more=np.zeros(1)), "lacks 'more'"),
        ({name: leaf for name, leaf in make_tree().items() if name != "wide"}, "holds 'wide', which nothing expects"),
        (change(wide=np.zeros(3, np.int64)), r"'wide' is int64\[2\], expected int64\[3\]"),
        (change(wide=np.zeros(2, np.int32)), r"'wide' is int64\[2\], expected int32\[2\]"),
        (change(rbg=jax.random.key(0)), r"'rbg' is key<rbg>\[\], expected key<fry>\[\]"),
    ],
)
def test_another_structure_is_refused(path, like, message):
    save(path, make_tree())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, kind="test", like=like)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"kind": "fit"}, "its kind is 'test', expected 'fit'"),
        ({"identity": {"space": "xyz"}}, "its identity is {'space': 'abc'}, expected {'space': 'xyz'}"),
        ({"identity": {}}, "its identity is {'space': 'abc'}, expected {'space': None}"),
    ],
)
def test_another_run_is_refused_and_both_are_named(path, expected, message):
    save(path, make_tree())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, **{"kind": "test", **expected})


def test_a_file_cut_anywhere_or_with_any_bit_flipped_is_refused(path):
    save(path, {"w": np.arange(3, dtype=np.float32)})
    content = path.read_bytes()
    for i in range(len(content)):
        for damaged in (content[:i], content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"run\.safetensors: is"):
                load_checkpoint(path, kind="test")
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(path, kind="test")


def forge(path: Path, **changes) -> None:
    """Rewrites the header and signs the file anew: what a hostile writer would do."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    manifest = {**json.loads(header["__metadata__"]["manifest"]), **changes.pop("manifest", {})}
    header["__metadata__"] = {"sha256": "0" * 64, "manifest": json.dumps(manifest), **changes.pop("metadata", {})}
    text = json.dumps({**header, **changes}, separators=(",", ":")).encode()
    blank = struct.pack("<Q", len(text)) + text + content[8 + size :]
    signed = checkpoint._digest(blank).encode()
    path.write_bytes(blank[: checkpoint._DIGEST.start] + signed + blank[checkpoint._DIGEST.stop :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifest": {"version": 2}}, "schema version 2, this metahpo_jax reads up to 1; upgrade"),
        ({"manifest": {"format": "other"}}, "holds no manifest"),
        ({"manifest": {"identity": []}}, "lacks or misuses 'identity'"),
        ({"manifest": {"keys": {"w": "threefry2x32"}}}, "is not sound"),
        ({"manifest": {"keys": {"w": "unheard of"}}}, "is not sound"),
        ({"manifest": {"keys": {"w": ["list"]}}}, "is not sound"),
        ({"metadata": {"manifest": "[" * 100}}, "not valid JSON"),
        ({"metadata": {"manifest": "7"}}, "holds no manifest"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}, "is not sound"),
        ({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 12]}}, "is not sound"),
        ({"w": {"dtype": "BF16", "shape": [6], "data_offsets": [0, 12]}}, "is not sound"),
        ({"v": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, "is not sound"),
        ({"w": 3}, "is not sound"),
    ],
)
def test_hostile_content_with_a_right_hash_is_refused(path, changes, message):
    save(path, {"w": np.arange(3, dtype=np.float32)})
    forge(path)
    assert load_checkpoint(path, kind="test")[0]["w"][2] == 2  # an honest forgery is read
    forge(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, kind="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no checkpoint"),
        (b"\x80\x04\x95" + b"\0" * 200, "is no checkpoint"),  # a pickle renamed
        (safetensors.numpy.save({"w": np.zeros(3)}), "is no checkpoint"),
        (struct.pack("<Q", 2**63) + checkpoint._OPENING + b"0" * 200, "header should have"),
    ],
)
def test_other_files_are_refused(path, content, message):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, kind="test")


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "nothing", "nul"])
def test_what_is_no_regular_file_is_refused_without_waiting(path, what):
    save(path, {"w": np.zeros(3)})
    other = path.with_name("other")
    if what == "link":
        other.symlink_to(path)
    elif what == "pipe":
        os.mkfifo(other)
    elif what == "folder":
        other.mkdir()
    elif what == "nul":
        other = Path(f"{path}\0")
    with pytest.raises(CheckpointError, match=r"regular file|cannot be read"):
        load_checkpoint(other, kind="test")


def test_nan_is_refused_on_both_sides_unless_allowed(path):
    tree = {"w": np.asarray([1.0, np.nan], np.float32)}
    with pytest.raises(CheckpointError, match="'w' holds NaN"):
        save(path, tree)
    assert not path.exists()
    save(path, tree, allow_nonfinite=True)
    with pytest.raises(CheckpointError, match="'w' holds NaN"):
        load_checkpoint(path, kind="test")
    assert np.isnan(load_checkpoint(path, kind="test", allow_nonfinite=True)[0]["w"][1])


@pytest.mark.parametrize(
    ("tree", "settings", "message"),
    [
        ({"w": jnp.zeros(2, jnp.bfloat16)}, {}, "'w' has type bfloat16"),
        ({"w": np.asarray(["text"])}, {}, "'w' has type"),
        ({"w": np.asarray([{}], object)}, {}, "'w' has type object"),
        ({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)}, {}, "two arrays of the tree would be named 'a/b'"),
        ({"__metadata__": np.zeros(1)}, {}, "__metadata__"),
        ({}, {"identity": {"x": float("nan")}}, "plain JSON"),
        ({}, {"metadata": {"x": object()}}, "plain JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused(path, tree, settings, message):
    with pytest.raises(CheckpointError, match=message):
        save(path, tree, **settings)
    assert not path.exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_last_checkpoint(path, monkeypatch, call):
    save(path, {"w": np.ones(3)})

    def crash(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        with pytest.raises(CheckpointError, match="cannot be written"):
            save(path, {"w": np.zeros(3)})
    assert load_checkpoint(path, kind="test")[0]["w"][0] == 1
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_in_the_way_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(path, {"w": np.zeros(3)})
