"""One's own tables: what an import keeps, what it refuses and in which words, and that the disk keeps it to the bit."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tiny_metadataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metahpo_jax.base import Status
from metahpo_jax.cli import main
from metahpo_jax.errors import DataError, MetaHPOError, StoreError
from metahpo_jax.metadata import (
    Archive,
    archive_of,
    import_table,
    is_archive,
    load_archive,
    load_metadataset,
    load_space,
    save_archive,
    save_metadataset,
)
from metahpo_jax.spaces import Choice, Float, Int, Space

TOML = """
[lr]
type = "float"
low = 1e-4
high = 1.0
log = true

[optimiser]
type = "choice"
values = ["sgd", "1"]

[momentum]
type = "float"
low = 0.0
high = 0.9
when = {optimiser = ["sgd"]}

[width]
type = "choice"
values = [16, 32]
ordered = true

[bias]
type = "choice"
values = [true, false]
"""
HEADER = "set,family,lr,optimiser,momentum,width,bias,epoch,error,seconds,outcome\n"
# Five learning curves of three tasks in two families: whole, ragged, diverged, failed; each its own configurations.
ROWS = """\
a-1,a,1e-3,sgd,0.9,16,true,1,0.9,1.5,
a-1,a,1e-3,sgd,0.9,16,true,3,0.5,3,
a-1,a,1e-3,sgd,0.9,16,true,9,0.25,,
a-1,a,1E-1,1,,32.0,False,1,0.75,1,
a-1,a,1,1,,32,false,1,0.8,1,
a-1,a,1,1,,32,false,3,nan,2,
a-2,a,0.01,sgd,0,16,TRUE,1,,1,
a-2,a,0.02,sgd,0,16,true,1,0.4,1,
a-2,a,0.03,sgd,0,16,true,1,0.3,1,
b-1,b,0.04,1,-7,16,true,1,inf,1,
b-1,b,0.05,1,,16,true,1,0.2,1,Failed
b-1,b,0.06,1,,16,true,1,0.1,1,OK
b-1,b,0.07,1,,16,true,1,0.15,1,
"""
COLUMNS: Mapping[str, Any] = dict(
    task="set", loss="error", fidelity="epoch", group="family", cost="seconds", status="outcome"
)


def space_of(folder: Path, text: str = TOML) -> Space:
    (folder / "space.toml").write_text(text)
    return load_space(folder / "space.toml")


def table_of(folder: Path, rows: str = ROWS, header: str = HEADER) -> Path:
    path = folder / "runs.csv"
    path.write_text(header + rows)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return import_table(table_of(tmp_path), space_of(tmp_path), **COLUMNS)


# --- what an import keeps --------------------------------------------------------------------------------------------


def test_rows_become_curves_of_each_task_with_its_own_configurations(archive: Archive) -> None:
    nan = np.nan
    assert [(task.name, task.base, task.group) for task in archive.tasks] == [
        ("a-1", "a", "a"),
        ("a-2", "a", "a"),
        ("b-1", "b", "b"),
    ]
    assert archive.bases == ("a", "b")
    assert (archive.fidelity, archive.unit, archive.metric) == ((1.0, 3.0, 9.0), "epoch", "error")
    first, _, last = archive.tasks
    np.testing.assert_array_equal(
        first.loss, np.asarray([[0.9, 0.5, 0.25], [0.75, nan, nan], [0.8, nan, nan]], np.float32)
    )
    assert first.cost is not None
    np.testing.assert_array_equal(first.cost, [[1.5, 3, nan], [1, nan, nan], [1, 2, nan]])
    states = [[Status(int(s)).name for s in task.status] for task in archive.tasks]
    assert states == [["OK", "OK", "DIVERGED"], ["FAILED", "OK", "OK"], ["DIVERGED", "FAILED", "OK", "OK"]]
    assert last.loss[1, 0] == np.float32(0.2)  # a failed run keeps the points that it reached
    assert np.isnan(last.told[0][1])


def test_cells_are_read_by_the_type_that_the_space_declares(archive: Archive) -> None:
    space = archive.spaces["runs"]
    configs = [space.decode(u) for u in archive.tasks[0].u]
    assert configs[0] == {
        "lr": pytest.approx(1e-3), "optimiser": "sgd", "momentum": pytest.approx(0.9), "width": 16, "bias": True,
    }  # fmt: skip
    assert configs[1] == {"lr": pytest.approx(0.1), "optimiser": "1", "width": 32, "bias": False}
    assert archive.tasks[2].u[0, 2] == 0.5  # the -7 of an inactive momentum has no meaning


def test_parquet_with_types_of_its_own_gives_the_same_archive(archive: Archive, tmp_path: Path) -> None:
    lines = [line.split(",") for line in ROWS.splitlines()]
    columns = dict(zip(HEADER.strip().split(","), map(list, zip(*lines, strict=True)), strict=True))
    numbers = {
        name: pa.array([float(cell) if cell else None for cell in columns[name]], pa.float64())
        for name in ("lr", "momentum", "width", "epoch", "error", "seconds")
    }
    texts = {name: pa.array(columns[name]) for name in ("family", "outcome")}
    kinds = {name: pa.array(columns[name]).dictionary_encode() for name in ("set", "optimiser")}
    truths = {"bias": pa.array([cell.lower() == "true" for cell in columns["bias"]])}
    pq.write_table(pa.table({**numbers, **texts, **kinds, **truths}), tmp_path / "runs.parquet")
    again = import_table(tmp_path / "runs.parquet", archive.spaces["runs"], **COLUMNS)
    assert again.content_hash == archive.content_hash


def test_without_fidelity_each_row_is_a_run_and_each_task_its_own_group(tmp_path: Path) -> None:
    path = table_of(tmp_path, "x,0.1,1\nx,0.2,3\nx,0.1,1\ny,0.5,\ny,0.6,0\ny,0.7,5\n", "t,lr,score\n")
    archive = import_table(path, Space(lr=Float(0, 1)), task="t", loss="score", maximise=True, name="mine")
    assert (archive.name, archive.metric, archive.fidelity) == ("mine", "negative score", (1.0,))
    assert [(task.base, task.group) for task in archive.tasks] == [("x", ""), ("y", "")]
    np.testing.assert_array_equal(archive.tasks[0].loss, [[-1], [-3]])  # the identical row counts once
    np.testing.assert_array_equal(archive.tasks[1].loss, [[np.nan], [0], [-5]])
    assert archive.tasks[0].cost is None


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    rows = np.column_stack([rng.integers(0, 50, n), rng.random(n), rng.integers(1, 1000, n), rng.random(n)])
    path = tmp_path / "many.csv"
    path.write_text("t,lr,k,y\n" + "".join(f"task {int(t)},{lr},{int(k)},{y}\n" for t, lr, k, y in rows))
    archive = import_table(path, Space(lr=Float(0, 1), k=Int(1, 1000, log=True)), task="t", loss="y")
    assert sum(len(task.u) for task in archive.tasks) == n
    order = np.argsort(rows[:, 0], kind="stable")
    first = archive.tasks[[task.name for task in archive.tasks].index("task 0")]
    np.testing.assert_array_equal(first.loss[:, 0], rows[order, 3][: len(first.u)].astype(np.float32))


# --- on disk ---------------------------------------------------------------------------------------------------------


def two_spaces() -> Archive:
    """A recorded meta-dataset and a task of another, smaller space, with a cap, a size and descriptors."""
    first = archive_of(tiny_metadataset())
    other = replace(
        first.tasks[0],
        name="other",
        space="small",
        u=first.tasks[0].u[:, :1].copy(),
        loss=np.where(np.arange(len(first.tasks[0].u))[:, None] % 5 == 1, -np.float32(np.nan), first.tasks[0].loss),
        status=np.where(np.arange(len(first.tasks[0].u)) % 5 == 1, Status.DIVERGED, Status.OK).astype(np.int8),
        cost=None,
        test_accuracy=None,
        cap=np.inf,
        size=np.nan,
        group="another architecture",
    )
    return replace(first, spaces={"small": Space(x=Float(0, 1)), **first.spaces}, tasks=(*first.tasks, other))


@pytest.mark.parametrize("which", ["imported", "two spaces"])
def test_the_disk_keeps_an_archive_to_the_last_bit(archive: Archive, which: str, tmp_path: Path) -> None:
    made = archive if which == "imported" else two_spaces()
    folder = save_archive(made, tmp_path / "saved")
    again = load_archive(folder)
    assert again.content_hash == made.content_hash
    assert sorted(os.listdir(folder)) == [
        "configurations.parquet",
        "evaluations.parquet",
        "manifest.json",
        "tasks.parquet",
    ]
    assert load_archive(save_archive(again.select([again.tasks[1].name]), folder)).tasks[0].name == again.tasks[1].name


def test_is_archive_tells_the_kinds_of_folder_apart(archive: Archive, tmp_path: Path) -> None:
    assert is_archive(save_archive(archive, tmp_path / "archive"))
    assert not is_archive(save_metadataset(tiny_metadataset(), tmp_path / "metadataset"))
    assert not is_archive(tmp_path / "nothing")
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    assert not is_archive(tmp_path)
    with pytest.raises(StoreError, match=r"expected 'metahpo_jax\.archive'"):
        load_archive(tmp_path / "metadataset")
    with pytest.raises(StoreError, match=r"expected 'metahpo_jax\.metadataset'"):
        load_metadataset(tmp_path / "archive")


@pytest.mark.parametrize("name", ["tasks.parquet", "configurations.parquet", "evaluations.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty", "pickle", "link"])
def test_a_damaged_file_is_named(archive: Archive, name: str, damage: str, tmp_path: Path) -> None:
    folder = save_archive(archive, tmp_path / "saved")
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "missing":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        new = {"truncated": data[:-20], "flipped": flipped, "empty": b"", "pickle": b"\x80\x04N."}[damage]
        path.write_bytes(new)
    with pytest.raises(StoreError, match=name):
        load_archive(folder)


def test_a_newer_schema_is_refused_by_name(archive: Archive, tmp_path: Path) -> None:
    folder = save_archive(archive, tmp_path / "saved")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(StoreError, match="schema 2 is newer than 1"):
        load_archive(folder)


UNSOUND = {
    "status": (dict(status=np.full(3, Status.PENDING, np.int8)), "status, row 0: got 1"),
    "dtype": (dict(loss=np.zeros((3, 3))), "loss: expected dtype float32, got float64"),
    "shape": (dict(cost=np.zeros((2, 3), np.float32)), r"cost: expected shape \(3, 3\), got \(2, 3\)"),
    "all failed": (dict(loss=np.full((3, 3), np.nan, np.float32)), "all 3 configurations failed"),
    "constant": (dict(loss=np.ones((3, 3), np.float32)), "the same for all configurations"),
    "slash": (dict(name="../up"), "holds a slash"),
}


@pytest.mark.parametrize(("changes", "words"), UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_archive_is_not_saved(archive: Archive, changes: dict, words: str, tmp_path: Path) -> None:
    broken = replace(archive, tasks=(replace(archive.tasks[0], **changes), *archive.tasks[1:]))
    with pytest.raises(DataError, match=words):
        save_archive(broken, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --- hostile tables --------------------------------------------------------------------------------------------------

GOOD = "x,0.1,1,a,1\nx,0.2,2,a,1\n"
HOSTILE = {  # rows of the columns t, lr, k, c, y; what the sentence says
    "outside": (GOOD + "x,5,1,a,1\n", ["row 3", "'lr'", "'5'", "from 0.0 to 1.0", "correct"]),
    "no number": (GOOD + "x,fast,1,a,1\n", ["row 3", "'lr'", "'fast'", "expected a number"]),
    "nan in lr": (GOOD + "x,nan,1,a,1\n", ["row 3", "'lr'", "'nan'", "expected a number"]),
    "underscore": (GOOD + "x,0.1,1_0,a,1\n", ["row 3", "'k'", "'1_0'", "expected a number"]),
    "fraction": (GOOD + "x,0.1,1.5,a,1\n", ["row 3", "'k'", "'1.5'", "whole number from 1 to 64"]),
    "long number": (GOOD + f"x,0.1,{'9' * 3000},a,1\n", ["row 3", "'k'", "whole number from 1 to 64"]),
    "category": (GOOD + "x,0.1,1,A,1\n", ["row 3", "'c'", "'A'", "'a', 'b'"]),
    "empty cell": (GOOD + "x,,1,a,1\n", ["row 3", "'lr'", "an empty cell", "only an inactive"]),
    "endless cell": (GOOD + f"x,0.1,1,{'a' * 5000},1\n", ["row 3", "'c'", "shorten"]),
    "text as loss": (GOOD + "x,0.1,1,a,NA\n", ["row 3", "'y'", "'NA'", "leave the cell empty"]),
    "conflict": (GOOD + "x,0.1,1,a,7\n", ["row 3", "'y'", "'7'", "row 1 has '1'", "average"]),
    "one run": (GOOD.replace("x,0.2", "z,0.2"), ["'x'", "at least 2 configurations"]),
    "all failed": ("x,0.1,1,a,\nx,0.2,1,a,inf\n", ["'x'", "all 2 configurations failed"]),
    "constant": (GOOD, ["'x'", "the same for all"]),
    "no rows": ("", ["expected a row per run"]),
    "task unnamed": (GOOD + ",0.1,1,a,1\n", ["row 3", "'t'", "''"]),
    "task with a path": (GOOD + "../x,0.1,1,a,1\n", ["row 3", "'t'", "'../x'", "slash"]),
    "few cells": (GOOD + "x,0.1\n", ["row 3", "expected 5 cells, got 2"]),
    "many cells": (GOOD + "x,0.1,1,a,1,1\n", ["row 3", "expected 5 cells, got 6"]),
}
PLAIN = Space(lr=Float(0, 1), k=Int(1, 64), c=Choice("a", "b"))


@pytest.mark.parametrize(("rows", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_table_is_a_sentence_with_row_column_and_value(rows: str, words: list[str], tmp_path: Path) -> None:
    path = table_of(tmp_path, rows, "t,lr,k,c,y\n")
    with pytest.raises(MetaHPOError) as caught:
        import_table(path, PLAIN, task="t", loss="y")
    assert str(caught.value).startswith(str(path))
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 600


ROLES = {  # changes of the roles and of a cell of ROWS; what the sentence says
    "near column": ({"loss": "eror"}, None, ["'eror' is missing", "did you mean 'error'"]),
    "far column": ({"group": "zzz"}, None, ["'zzz' is missing", "its columns are 'set'"]),
    "leak": ({"loss": "lr"}, None, ["loss", "'lr' is a hyperparameter already"]),
    "two roles": ({"cost": "error"}, None, ["cost", "'error' is the loss already"]),
    "group varies": ({}, ("a-1,a,1,1,,32,false,3", "a-1,b,1,1,,32,false,3"), ["row 6", "'family'", "'b'", "'a'"]),
    "gap": ({}, ("true,3,0.5", "true,4,0.5"), ["row 2", "'epoch'", "'4'", "no loss at 3", "only end early"]),
    "after a failure": ({}, ("true,3,0.5", "true,3,nan"), ["row 3", "'epoch'", "'9'", "no loss at 3"]),
    "fidelity": ({}, ("true,3,0.5", "true,,0.5"), ["row 2", "'epoch'", "an empty cell"]),
    "cost": ({}, ("0.5,3,", "0.5,-3,"), ["row 2", "'seconds'", "'-3'", "from 0"]),
    "status": ({}, (",OK", ",fine"), ["row 12", "'outcome'", "'fine'", "diverged"]),
    "conflict": ({}, ("true,3,0.5", "true,1,0.5"), ["row 2", "'0.5'", "row 1 has '0.9'", "fidelity"]),
    "status conflict": (
        {},
        ("\n", "\na-1,a,1e-3,sgd,0.9,16,true,1,0.9,1.5,failed\n"),
        ["row 2", "row 1 has '0.9' (OK)"],
    ),
    "not a truth": ({}, ("false,1", "no,1"), ["row 5", "'bias'", "'no'", "True, False"]),
}


@pytest.mark.parametrize(("roles", "edit", "words"), ROLES.values(), ids=ROLES)
def test_a_hostile_column_is_a_sentence(
    roles: dict, edit: tuple[str, str] | None, words: list[str], tmp_path: Path
) -> None:
    rows = ROWS.replace(edit[0], edit[1], 1) if edit else ROWS
    assert edit is None or rows != ROWS
    with pytest.raises(MetaHPOError) as caught:
        import_table(table_of(tmp_path, rows), space_of(tmp_path), **{**COLUMNS, **roles})
    for word in words:
        assert word in str(caught.value)


def test_a_curve_of_too_many_fidelities_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    rows = "".join(f"x,{i / 4000},{i + 0.5},{i}\n" for i in range(4000))
    path = table_of(tmp_path, rows, "t,lr,second,y\n")
    with pytest.raises(StoreError, match="4000 configurations x 4000 fidelities"):
        import_table(path, Space(lr=Float(0, 1)), task="t", loss="y", fidelity="second")


def test_a_long_text_in_every_row_is_refused_without_unfolding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    long = pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), ["a" * 100_000])  # 20 GB when unfolded
    pq.write_table(pa.table({"t": long, "lr": pa.array(np.zeros(200_000)), "y": pa.array(np.zeros(200_000))}), path)
    with pytest.raises(DataError, match=r"row 1, column 't': got 'a{40}\.\.\.'; shorten"):
        import_table(path, Space(lr=Float(0, 1)), task="t", loss="y")


def test_categories_that_no_row_has_are_no_tasks(tmp_path: Path) -> None:
    tasks = pa.DictionaryArray.from_arrays(pa.array([2, 2, 1, 1], pa.int8()), ["unused", " b", "a", "b "])
    numbers = pa.array([0.1, 0.2, 0.3, 0.4])
    pq.write_table(pa.table({"t": tasks, "lr": numbers, "y": numbers}), tmp_path / "runs.parquet")
    archive = import_table(tmp_path / "runs.parquet", Space(lr=Float(0, 1)), task="t", loss="y")
    assert [task.name for task in archive.tasks] == ["a", "b"]


def test_a_small_file_of_too_many_rows_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    zeros = pa.array(np.zeros(4_000_001, np.int8))
    pq.write_table(pa.table({"t": zeros, "lr": zeros, "y": zeros}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(StoreError, match="at most 4000000 rows, got 4000001"):
        import_table(path, Space(lr=Float(0, 1)), task="t", loss="y")


FILES = {  # content of a file by its name; what the sentence says
    "latin.csv": ("t,lr,y\nx,0.1,1\nñ,0.1,1\n".encode("latin-1"), ["line 3", "not UTF-8"]),
    "empty.csv": (b"", ["no CSV"]),
    "twice.csv": (b"t,lr,y,y\nx,0.1,1,2\n", ["'y' is there twice"]),
    "semicolons.csv": (b"t;lr;y\nx;0.1;1\n", ["'lr' is missing", "t;lr;y"]),
    "text.parquet": (b"t,lr,y\nx,0.1,1\n", ["no sound Parquet"]),
    "cut.parquet": (b"PAR1\x00\x00\xff\xff\xff\x7fPAR1", ["no sound Parquet"]),
    "table.xlsx": (b"", ["ends in .csv or .parquet"]),
    "table.csv.gz": (b"", ["ends in .csv or .parquet", "unpack"]),
    "missing.csv": (None, ["cannot be read"]),
    "folder.csv": (None, ["expected a file, got a folder"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_a_sentence_with_its_name(name: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(MetaHPOError) as caught:
        import_table(tmp_path / name, Space(lr=Float(0, 1)), task="t", loss="y")
    for word in (name, *words):
        assert word in str(caught.value)


def test_a_list_column_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    pq.write_table(pa.table({"t": ["x", "x"], "lr": [[0.1], [0.2]], "y": [1.0, 2.0]}), path)
    with pytest.raises(DataError, match="'lr': expected numbers or texts, got list"):
        import_table(path, Space(lr=Float(0, 1)), task="t", loss="y")


SPACES = {  # TOML; what the sentence says
    "syntax": ("[lr\n", ["not valid TOML"]),
    "twice": ("[lr]\ntype='float'\n[lr]\n", ["not valid TOML"]),
    "latin": ("[lr]\n# ñ\n".encode("latin-1"), ["not UTF-8"]),
    "deep": ("x = " + "[" * 200_000, ["not valid TOML"]),
    "long number": (f"[lr]\ntype='int'\nlow=0\nhigh={'9' * 5000}", ["not valid TOML"]),
    "infinite": ("[lr]\ntype='float'\nlow=0\nhigh=inf", ["[lr]", "high must be finite"]),
    "empty": ("", ["at least one hyperparameter"]),
    "no table": ("lr = 3", ["[lr]", "with a type", "got 3"]),
    "unknown type": ("[lr]\ntype='real'", ["'lr'", "float, int, choice", "'real'"]),
    "list as type": ("[lr]\ntype=['float']", ["[lr]", "with a type"]),
    "unknown key": ("[lr]\ntype='float'\nlow=0\nhigh=1\nlgo=true", ["'lr'", "unknown field 'lgo'", "'log'"]),
    "missing key": ("[lr]\ntype='float'\nlow=0", ["'lr'", "missing field 'high'"]),
    "order": ("[lr]\ntype='float'\nlow=2\nhigh=1", ["[lr]", "low must not exceed high"]),
    "date": ("[c]\ntype='choice'\nvalues=[1979-05-27]", ["[c]", "must be str, int, float or bool"]),
    "orphan": ("[m]\ntype='float'\nlow=0\nhigh=1\nwhen={o='sgd'}", ["'m'", "unknown 'o'"]),
}


@pytest.mark.parametrize(("text", "words"), SPACES.values(), ids=SPACES)
def test_a_hostile_space_is_a_sentence(text: str | bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MetaHPOError) as caught:
        load_space(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 600


CELLS = st.sampled_from([*"x,\n\"'\r;\t .-=", "\n", ",", "0.1", "1", "nan", "\0", "é", "\ufeff", "1e999"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.sampled_from([b"", b"t,lr,y\n", b"t,lr,y\nx,0.1,1\nx,0.2,2\n"]),
    content=st.binary(max_size=200) | st.lists(CELLS, max_size=60).map(lambda cells: "".join(cells).encode()),
    suffix=st.sampled_from(["csv", "csv", "csv", "parquet"]),
)
def test_random_bytes_are_an_archive_or_a_typed_error(
    header: bytes, content: bytes, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"random.{suffix}"
    path.write_bytes(header + content)
    try:
        archive = import_table(path, Space(lr=Float(0, 1)), task="t", loss="y")
    except MetaHPOError as error:
        assert str(path) in str(error)
    else:
        archive.validate()


# --- command line ----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_archive_and_says_what_is_in_it(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, space, out = tmp_path / "runs.csv", tmp_path / "space.toml", tmp_path / "mine"
    words = ["import", str(table), "--space", str(space), "--out", str(out)]
    for role, column in COLUMNS.items():
        words += [f"--{role}", column]
    assert main(words) == 0
    said = capsys.readouterr().out
    for line in ("3 / 3 / 4", "3, in epoch", "4 of 10 runs (2 diverged, 2 failed)", f"bench --benchmark {out} --out"):
        assert line in said
    assert load_archive(out).content_hash == archive.content_hash
    assert main([*words, "--maximise"]) == 0
    np.testing.assert_array_equal(load_archive(out).tasks[1].loss, -archive.tasks[1].loss)


def test_the_command_ends_with_2_and_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space_of(tmp_path)
    words = ["--space", str(tmp_path / "space.toml"), "--task", "set", "--loss", "error", "--out", str(tmp_path / "o")]
    assert main(["import", str(tmp_path / "runs.csv"), *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("metahpo: ") and "runs.csv" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "o").exists()
