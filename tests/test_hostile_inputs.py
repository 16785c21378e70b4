"""Bad input raises its own typed error, a sentence that names what is wrong and where, and leaves nothing behind."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tiny_metadataset

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError, MetaHPOError, SpaceError, StoreError
from metahpo_jax.metadata import MetaDataset, load_metadataset, save_metadataset
from metahpo_jax.spaces import Choice, Float, Int, Space


def refused(call: Callable[[], object], kind: type[MetaHPOError], words: list[str]) -> str:
    """Runs `call` and holds its error to its type and to a readable sentence with all of `words`."""
    with pytest.raises(MetaHPOError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert all(word in message for word in words), message
    assert message.endswith(".") and message.isprintable() and len(message) < 600, message
    return message


# --- spaces ----------------------------------------------------------------------------------------------------------


def two(**parent: Any) -> dict[str, Any]:
    return {"a": {"type": "choice", "values": [1, 2]}, "b": {"type": "float", "low": 0, "high": 1, "when": parent}}


SPACES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "low above high": (lambda: Float(2.0, 1.0), ["low=2.0", "swap"]),
    "nan bound": (lambda: Float(float("nan"), 1.0), ["low", "nan", "finite"]),
    "infinite bound": (lambda: Float(0.0, float("inf")), ["high", "inf", "finite"]),
    "infinite int bound": (lambda: Int(0, float("inf")), ["high", "finite"]),  # type: ignore[arg-type]
    "log from zero": (lambda: Float(0.0, 1.0, log=True), ["low=0.0", "drop log=True"]),
    "log from below zero": (lambda: Int(-3, 8, log=True), ["low=-3", "raise low"]),
    "int beyond int32": (lambda: Int(0, 2**31), ["high", "int32"]),
    "int of a fraction": (lambda: Int(0, 2.5), ["2.5", "use Float"]),  # type: ignore[arg-type]
    "float beyond float32": (lambda: Float(0.0, 1e300), ["float32", "1e+300"]),
    "range lost in float32": (lambda: Float(1e9, 1e9 + 1), ["lost in float32", "offset instead"]),
    "bound as text": (lambda: Float("0", 1.0), ["'0'", "str"]),  # type: ignore[arg-type]
    "no categories": (lambda: Choice(), ["at least one value"]),
    "categories 1 and True": (lambda: Choice(1, True), ["1 and True", "differ"]),
    "categories 1 and '1'": (lambda: Choice(1, "1"), ["'1'", "differ"]),
    "categories in a list": (lambda: Choice(["a", "b"]), ["unpack"]),
    "empty space": (lambda: Space(), ["at least one hyperparameter"]),
    "unknown name": (lambda: Space(x=Float(0, 1)).encode({"y": 1}), ["unknown", "'y'", "known are x"]),
    "missing name": (lambda: Space(x=Float(0, 1)).encode({}), ["'x' is missing"]),
    "value outside": (lambda: Space(x=Float(0, 1)).encode({"x": 2.0}), ["'x'", "from 0", "2.0"]),
    "unknown category": (lambda: Space(x=Choice("a", "b")).encode({"x": "c"}), ["'x'", "'a', 'b'", "'c'"]),
    "coordinate nan": (lambda: Space(x=Float(0, 1)).decode([float("nan")]), ["'x'", "finite"]),
    "condition on itself": (lambda: Space(a=Choice(1, 2, when={"a": 1})), ["circle", "a -> a"]),
    "condition cycle": (
        lambda: Space(a=Choice(1, 2, when={"b": 1}), b=Choice(1, 2, when={"a": 1})),
        ["circle", "a -> b -> a"],
    ),
    "unknown parent": (lambda: Space(a=Float(0, 1, when={"b": 1})), ["'a'", "'b'", "known are a"]),
    "nul in a name": (lambda: Space.of({"a\0b": Float(0, 1)}), ["a\\x00b", "printable"]),
    "bidi in a name": (lambda: Space.of({"a\u202eb": Float(0, 1)}), ["\\u202e", "printable"]),
    "long name": (lambda: Space.of({"a" * 10_000: Float(0, 1)}), ["10000", "at most"]),
    "blank name": (lambda: Space.of({" ": Float(0, 1)}), ["empty"]),
    "description is a list": (lambda: Space.from_json([]), ["expected a table", "list"]),
    "description lacks a bound": (
        lambda: Space.from_json({"x": {"type": "float", "low": 0}}),
        ["'x'", "missing", "high"],
    ),
    "description misspelt": (
        lambda: Space.from_json({"x": {"type": "float", "low": 0, "high": 1, "hihg": 1}}),
        ["'x'", "unknown", "'hihg'"],
    ),
    "description of no type": (lambda: Space.from_json({"x": {"type": "flaot"}}), ["'x'", "float, int, choice"]),
    "description of values": (lambda: Space.from_json({"x": {"type": "choice", "values": "ab"}}), ["'x'", "list"]),
    "description of a parent": (lambda: Space.from_json(two(c=[1])), ["'b'", "'c'", "known are a, b"]),
    "description of a parent's value": (lambda: Space.from_json(two(a=[[1]])), ["'b'", "'a'", "1, 2"]),
}


@pytest.mark.parametrize("case", SPACES)
def test_bad_space_is_refused(case: str) -> None:
    call, words = SPACES[case]
    refused(call, SpaceError, words)


# --- meta-datasets in memory -----------------------------------------------------------------------------------------


def cell(field: str, value: float, at: tuple[int, ...] = (1, 2, 0)) -> Callable[[MetaDataset], MetaDataset]:
    """One other number in an array."""

    def edit(dataset: MetaDataset) -> MetaDataset:
        array = getattr(dataset, field).copy()
        array[at] = value
        return replace(dataset, **{field: array})

    return edit


def other(field: str, change: Callable[[Any], Any]) -> Callable[[MetaDataset], MetaDataset]:
    return lambda dataset: replace(dataset, **{field: change(getattr(dataset, field))})


def task(row: int, **facts: Any) -> Callable[[MetaDataset], MetaDataset]:
    def edit(dataset: MetaDataset) -> MetaDataset:
        tasks = list(dataset.tasks)
        tasks[row] = replace(tasks[row], **facts)
        return replace(dataset, tasks=tuple(tasks))

    return edit


def resumed(dataset: MetaDataset) -> MetaDataset:
    """The run that diverges goes on as if nothing had happened."""
    loss = dataset.valid_loss.copy()
    loss[dataset.status == Status.DIVERGED] = 0.5
    return replace(dataset, valid_loss=loss)


def duplicate(dataset: MetaDataset) -> MetaDataset:
    """Configuration 5 becomes a copy of 4 and keeps its own results."""
    u = dataset.u.copy()
    u[5] = u[4]
    return replace(dataset, u=u)


def few_configurations(count: int) -> Callable[[MetaDataset], MetaDataset]:
    def edit(dataset: MetaDataset) -> MetaDataset:
        per_run = (
            "valid_loss",
            "valid_accuracy",
            "test_accuracy",
            "train_loss",
            "gradient_norm",
            "learning_rate",
            "flops",
        )
        cut = {field: getattr(dataset, field)[:, :count] for field in (*per_run, "status", "diverged_at")}
        return replace(dataset, u=dataset.u[:count], **cut)

    return edit


POINT = ["curves.parquet", "row 54", "'task-1'", "configuration 2", "point 0"]  # (1 * 16 + 2) * 3 points
CONTENTS: dict[str, tuple[Callable[[MetaDataset], MetaDataset], list[str]]] = {
    "zero tasks": (other("tasks", lambda tasks: ()), ["tasks.parquet", "zero tasks", "build"]),
    "zero configurations": (few_configurations(0), ["configs.parquet", "at least 2", "got 0", "record more"]),
    "one configuration": (few_configurations(1), ["configs.parquet", "at least 2", "got 1", "record more"]),
    "zero points": (other("fidelity", lambda f: f[:0]), ["fidelity", "at least 1"]),
    "wrong dtype": (other("valid_loss", lambda a: a.astype(np.float64)), ["valid_loss", "float32", "float64", "cast"]),
    "array of objects": (other("flops", lambda a: a.astype(object)), ["flops", "float64", "object", "cast"]),
    "a list for an array": (other("status", lambda a: a.tolist()), ["status", "int8", "list", "cast"]),
    "wrong shape": (
        other("train_loss", lambda a: a[:, :, :-1]),
        ["train_loss", "(4, 16, 3)", "(4, 16, 2)", "every task"],
    ),
    "descriptor too short": (
        task(1, descriptor=np.zeros(2, np.float32)),
        ["row 1", "task-1", "descriptor", "(3,)", "(2,)"],
    ),
    "infinite descriptor": (task(1, descriptor=np.full(3, np.inf, np.float32)), ["'number'", "use NaN"]),
    "nan cell": (cell("valid_loss", np.nan), [*POINT, "valid_loss", "nan", "mark the run FAILED"]),
    "infinite cell": (cell("gradient_norm", np.inf), [*POINT, "gradient_norm", "inf", "mark the run FAILED"]),
    "number after the divergence": (resumed, ["valid_loss", "'task-0'", "after the divergence", "use NaN"]),
    "accuracy above one": (cell("test_accuracy", 97.0), [*POINT, "test_accuracy", "97.0", "divide"]),
    "negative flops": (cell("flops", -1.0), [*POINT, "flops", "negative", "again"]),
    "unknown status": (cell("status", Status.PENDING, (1, 2)), [*POINT, "status", "got 1", "finished runs only"]),
    "divergence of a sound run": (cell("diverged_at", 5.0, (1, 2)), [*POINT, "diverged_at", "5.0", "OK", "NaN"]),
    "unsorted fidelity": (other("fidelity", lambda f: f[::-1].copy()), ["fidelity", "increasing", "sort"]),
    "repeated fidelity": (other("fidelity", lambda f: np.full_like(f, 3.0)), ["fidelity", "increasing", "repeated"]),
    "duplicate task": (task(2, name="task-0"), ["row 2", "'task-0'", "duplicate of row 0", "rename"]),
    "path traversal": (task(1, name="../../etc/passwd"), ["row 1", "'../../etc/passwd'", "rename"]),
    "absolute path": (task(1, name="/etc/passwd"), ["row 1", "'/etc/passwd'", "rename"]),
    "backslash": (task(1, base="..\\x"), ["row 1", "task-1", "base", "rename"]),
    "nul in a name": (task(1, name="a\0b"), ["row 1", "a\\x00b", "unprintable", "rename"]),
    "bidi in a name": (task(1, name="a\u202eb"), ["row 1", "\\u202e", "unprintable", "rename"]),
    "long name": (task(1, name="a" * 10_000), ["row 1", "128 characters", "rename"]),
    "no name": (other("name", lambda name: ""), ["manifest.json", "name", "''", "rename"]),
    "one class": (task(3, n_classes=1), ["row 3", "task-3", "n_classes", "at least 2", "drop"]),
    "prior entropy nan": (task(3, prior_entropy=float("nan")), ["row 3", "task-3", "prior_entropy", "nan", "drop"]),
    "duplicate configurations": (duplicate, ["configuration 5", "duplicate of 4", "conflicting", "drop"]),
    "outside the cube": (cell("u", 1.5, (3, 0)), ["configs.parquet", "row 3", "'learning_rate'", "1.5", "encode"]),
    "unknown category": (
        cell("u", 0.4, (3, 2)),
        ["configs.parquet", "row 3", "'optimiser'", "unknown category", "snap"],
    ),
    "duplicate descriptor": (
        other("descriptor_names", lambda n: ("a", "a", "b")),
        ["descriptor_names", "distinct", "rename"],
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_content_is_refused_and_never_written(tmp_path: Path, case: str) -> None:
    edit, words = CONTENTS[case]
    bad = edit(tiny_metadataset())
    refused(bad.validate, DataError, words)
    refused(lambda: save_metadataset(bad, tmp_path / "m"), DataError, words)
    assert not os.listdir(tmp_path)


def constant(dataset: MetaDataset) -> MetaDataset:
    loss = dataset.valid_loss.copy()
    loss[2] = np.where(np.isnan(loss[2]), np.nan, np.float32(9.0))  # all above the prior entropy
    return replace(dataset, valid_loss=loss)


def test_constant_target_is_refused_where_it_would_be_learned_from(tmp_path: Path) -> None:
    dataset = constant(tiny_metadataset())
    words = ["'task-2'", "constant", "select"]
    refused(lambda: dataset.validate(strict=True), DataError, words)
    folder = save_metadataset(dataset, tmp_path / "m")
    refused(lambda: load_metadataset(folder), DataError, words)
    load_metadataset(folder, strict=False).without_base("base-1").validate(strict=True)


# --- meta-datasets on disk -------------------------------------------------------------------------------------------


def sealed(manifest: dict[str, Any]) -> bytes:
    """A manifest with a fresh checksum: what somebody who edits it on purpose would write."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    rest["checksum"] = hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()
    return json.dumps(rest).encode()


def manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        whole = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_bytes(sealed(whole | changes))

    return edit


def content(name: str, data: bytes) -> Callable[[Path], None]:
    """Other bytes in a file, with a manifest that agrees with them."""

    def edit(folder: Path) -> None:
        (folder / name).write_bytes(data)
        whole = json.loads((folder / "manifest.json").read_text())
        whole["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (folder / "manifest.json").write_bytes(sealed(whole))

    return edit


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Another table, with a manifest that agrees with it."""

    def edit(folder: Path) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(change(pq.read_table(folder / name)), sink)
        content(name, sink.getvalue().to_pybytes())(folder)

    return edit


def column(name: str, field: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    """Other values of one column."""

    def change(whole: pa.Table) -> pa.Table:
        array = pa.array(values(whole[field].to_pylist()), whole[field].type)
        return whole.set_column(whole.column_names.index(field), field, array)

    return table(name, change)


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return at(0, value)


def at(row: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:row], value, *values[row + 1 :]]


def raw(name: str, data: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return edit


def cut(name: str, keep: float) -> Callable[[Path], None]:
    return lambda folder: raw(name, (whole := (folder / name).read_bytes())[: int(keep * len(whole))])(folder)


def flip(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        whole = bytearray((folder / name).read_bytes())
        whole[len(whole) // 2] ^= 1
        (folder / name).write_bytes(whole)

    return edit


def symlink_out(folder: Path) -> None:
    outside = folder.parent / "outside.parquet"
    (folder / "curves.parquet").rename(outside)
    (folder / "curves.parquet").symlink_to(outside)


def symlink_loop(folder: Path) -> None:
    (folder / "curves.parquet").unlink()
    (folder / "curves.parquet").symlink_to("curves.parquet")


def fifo(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def folder_for_file(folder: Path) -> None:
    (folder / "tasks.parquet").unlink()
    (folder / "tasks.parquet").mkdir()


def bomb(whole: pa.Table) -> pa.Table:
    """Five million rows that compress to a few kilobytes."""
    return pa.table(
        {name: pa.array(np.zeros(5_000_000, np.int8)).cast(whole[name].type) for name in ("task", "config")}
    )


MANIFEST, TASKS, CONFIGS, CURVES = "manifest.json", "tasks.parquet", "configs.parquet", "curves.parquet"
FOLDERS: dict[str, tuple[Callable[[Path], None], type[MetaHPOError], list[str]]] = {
    **{f"truncated {name}": (cut(name, 0.5), StoreError, [name]) for name in (TASKS, CONFIGS, CURVES)},
    "truncated manifest": (cut(MANIFEST, 0.9), StoreError, [MANIFEST, "JSON", "again"]),
    "empty table": (raw(CURVES, b""), StoreError, [CURVES, "got 0", "copy"]),
    "empty manifest": (raw(MANIFEST, b""), StoreError, [MANIFEST, "JSON", "again"]),
    **{f"bit flipped in {name}": (flip(name), StoreError, [name, "SHA-256", "copy"]) for name in (TASKS, CURVES)},
    "bit flipped in manifest": (flip(MANIFEST), StoreError, [MANIFEST]),
    "sealed rubbish": (
        content(CURVES, b"PAR1" + bytes(100) + b"PAR1"),
        StoreError,
        [CURVES, "no sound Parquet", "copy"],
    ),
    "missing table": (lambda folder: (folder / CURVES).unlink(), StoreError, [CURVES, "no such file", "build"]),
    "missing manifest": (lambda folder: (folder / MANIFEST).unlink(), StoreError, [MANIFEST, "no such file", "build"]),
    "missing column": (
        table(CURVES, lambda t: t.drop_columns(["flops"])),
        DataError,
        [CURVES, "'flops'", "missing", "build"],
    ),
    "unknown column": (table(CURVES, lambda t: t.append_column("x", t["flops"])), DataError, [CURVES, "'x'", "drop"]),
    "twice a column": (table(CURVES, lambda t: t.append_column("flops", t["flops"])), DataError, ["'flops'", "twice"]),
    "wrong dtype": (
        table(CURVES, lambda t: t.set_column(5, "valid_loss", t["valid_loss"].cast(pa.float64()))),
        DataError,
        [CURVES, "valid_loss", "float", "double", "cast"],
    ),
    "list column": (
        table(TASKS, lambda t: t.set_column(4, "n_train", pa.array([[1]] * 4))),
        DataError,
        [TASKS, "n_train", "int64", "list", "cast"],
    ),
    "null": (column(CURVES, "train_loss", first(None)), DataError, [CURVES, "train_loss", "row 0", "null", "NaN"]),
    "missing row": (table(CURVES, lambda t: t.slice(1)), DataError, [CURVES, "= 192 rows", "got 191", "keep a row"]),
    "rows out of order": (
        table(CURVES, lambda t: t.take([*range(1, 192), 0])),
        DataError,
        [CURVES, "task, row 47", "sort"],
    ),
    "two statuses of a run": (
        column(CURVES, "status", at(4, 4)),
        DataError,
        ["status, row 4", "first point", "correct"],
    ),
    "zero tasks": (table(TASKS, lambda t: t.slice(0, 0)), DataError, ["0 tasks", "got 192"]),
    "nan cell": (
        column(CURVES, "valid_loss", at(5, float("nan"))),
        DataError,
        [CURVES, "valid_loss", "row 5", "'task-0'"],
    ),
    "path traversal": (column(TASKS, "name", first("../x")), DataError, ["tasks.parquet, row 0", "'../x'", "rename"]),
    "long text": (column(TASKS, "licence", first("x" * 5000)), DataError, ["licence", "4096", "5000", "shorten"]),
    "unknown category": (
        column(CONFIGS, "config", first('{"learning_rate": 0.1, "width": 8, "optimiser": "lion"}')),
        DataError,
        [CONFIGS, "row 0", "'optimiser'", "'lion'", "build"],
    ),
    "configuration of a huge number": (
        column(CONFIGS, "config", first('{"learning_rate": 1' + "0" * 400 + ', "width": 8, "optimiser": "adam"}')),
        DataError,
        ["row 0", "build"],
    ),
    "configuration that is no object": (column(CONFIGS, "config", first("[]")), DataError, ["row 0", "'[]'", "build"]),
    "another coordinate": (
        column(CONFIGS, "u_learning_rate", first(0.123)),
        DataError,
        [CONFIGS, "row 0", "'learning_rate'", "0.123", "correct"],
    ),
    "newer schema": (manifest(version=99), StoreError, [MANIFEST, "version", "99 is newer", "upgrade"]),
    "schema of no number": (manifest(version=True), StoreError, [MANIFEST, "version", "True", "build"]),
    "another format": (manifest(format="zip"), StoreError, [MANIFEST, "format", "correct the path"]),
    "space hash mismatch": (manifest(space_hash="0" * 64), StoreError, [MANIFEST, "space_hash", "build"]),
    "content hash mismatch": (manifest(content_hash="0" * 64), StoreError, [MANIFEST, "content_hash", "build"]),
    "edited manifest": (
        lambda folder: raw(MANIFEST, (folder / MANIFEST).read_bytes().replace(b'"tiny"', b'"tidy"'))(folder),
        StoreError,
        [MANIFEST, "checksum", "edited", "copy"],
    ),
    "empty space": (manifest(space={}), StoreError, [MANIFEST, "space", "at least one", "build"]),
    "field of another type": (manifest(fidelity="3"), StoreError, [MANIFEST, "fidelity", "list", "'3'", "build"]),
    "huge fidelity": (manifest(fidelity=[3, 10**400, 9]), StoreError, [MANIFEST, "fidelity, row 1", "build"]),
    "unsorted fidelity": (manifest(fidelity=[9.0, 3.0, 27.0]), DataError, [CURVES, "fidelity, row 0", "sort"]),
    "file that is not ours": (manifest(files={"../x": {}}), StoreError, [MANIFEST, "files", "'../x'", "build"]),
    "file without a hash": (manifest(files={}), StoreError, [MANIFEST, "'tasks.parquet'", "build"]),
    "JSON NaN": (raw(MANIFEST, b'{"version": NaN}'), StoreError, [MANIFEST, "NaN", "again"]),
    "JSON 1e999": (raw(MANIFEST, b'{"version": 1e999}'), StoreError, [MANIFEST, "1e999", "again"]),
    "JSON of 5000 digits": (raw(MANIFEST, b'{"version": ' + b"9" * 5000 + b"}"), StoreError, ["digits", "again"]),
    "deep JSON": (raw(MANIFEST, b"[" * 200_000), StoreError, [MANIFEST, "deep", "again"]),
    "duplicate keys": (raw(MANIFEST, b'{"version": 1, "version": 2}'), StoreError, [MANIFEST, "'version'", "again"]),
    "not UTF-8": (raw(MANIFEST, b'{"name": "\xff"}'), StoreError, [MANIFEST, "utf-8", "again"]),
    "large JSON": (raw(MANIFEST, b" " * (4 * 2**20 + 1)), StoreError, [MANIFEST, "at most 4194304 bytes"]),
    "provenance of no objects": (raw("provenance.jsonl", b"{}\n3\n"), StoreError, ["row 1", "int", "delete"]),
    "symlink out": (symlink_out, StoreError, [CURVES, "out of the folder", "copy"]),
    "symlink loop": (symlink_loop, StoreError, [CURVES, "symbolic links", "check"]),
    "pipe": (fifo, StoreError, [MANIFEST, "regular file", "again"]),
    "folder for a file": (folder_for_file, StoreError, [TASKS, "directory", "build"]),
    "decompression bomb": (table(CURVES, bomb), StoreError, [CURVES, "4000000 rows", "5000000"]),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_bad_folder_is_refused_and_left_alone(tmp_path: Path, case: str) -> None:
    edit, kind, words = FOLDERS[case]
    folder = save_metadataset(tiny_metadataset(), tmp_path / "m")
    edit(folder)
    before = sorted(os.listdir(tmp_path)), sorted(os.listdir(folder))
    refused(lambda: load_metadataset(folder), kind, ["m", *words])
    assert (sorted(os.listdir(tmp_path)), sorted(os.listdir(folder))) == before


def test_one_folder_edited_on_purpose_but_soundly_is_read(tmp_path: Path) -> None:
    """The edits above fail for their reason and not because of how they are made."""
    folder = save_metadataset(tiny_metadataset(), tmp_path / "m")
    table(CURVES, lambda whole: whole)(folder)
    manifest(writer={})(folder)
    assert load_metadataset(folder).content_hash == tiny_metadataset().content_hash


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent", ["absent", "no such file", "metahpo build"]),
        ("file", ["file", "expected a folder", "metahpo build"]),
        ("file/below", ["below", "not a directory", "metahpo build"]),
        ("a\0b", ["null", "metahpo build"]),
        ("x" * 300, ["too long", "metahpo build"]),
    ],
    ids=["absent", "file", "below a file", "nul", "long"],
)
def test_bad_path_to_read_is_refused(tmp_path: Path, path: str, words: list[str]) -> None:
    (tmp_path / "file").write_text("")
    refused(lambda: load_metadataset(tmp_path / path), StoreError, words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file", ["file is in the way", "choose"]),
        ("file/below", ["not a directory", "choose"]),
        ("file/far/below", ["not a directory", "choose"]),
        ("taken", ["other files", "choose"]),
        ("a\0b", ["null", "choose"]),
        ("x" * 300, ["too long", "choose"]),
    ],
    ids=["file", "below a file", "far below a file", "taken", "nul", "long"],
)
def test_bad_path_to_write_is_refused_and_nothing_is_left(tmp_path: Path, path: str, words: list[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError) as caught:
        save_metadataset(tiny_metadataset(), tmp_path / path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]
    assert (tmp_path / "file").read_text() == (tmp_path / "taken" / "thesis.tex").read_text() == "mine"


def test_provenance_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    dataset = replace(tiny_metadataset(), provenance=({"seconds": float("nan")},))
    refused(lambda: save_metadataset(dataset, tmp_path / "m"), DataError, ["provenance.jsonl", "convert"])
    assert not os.listdir(tmp_path)
