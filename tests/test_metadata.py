"""The meta-dataset: what it computes, that the disk keeps it to the last bit, and that failed writes leave nothing."""

import errno
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_metadataset
from hypothesis import given
from hypothesis import strategies as st

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError, MetaHPOError, StoreError
from metahpo_jax.metadata import MetaDataset, load_metadataset, save_metadataset, summarise
from metahpo_jax.metadata.files import strict_json
from metahpo_jax.metadata.validation import CURVES

ARRAYS = ("u", "fidelity", *CURVES, "flops", "status", "diverged_at")


def with_provenance(dataset: MetaDataset, **entry: object) -> MetaDataset:
    return replace(dataset, provenance=(entry,))


# --- what it computes ------------------------------------------------------------------------------------------------


def test_objective_is_capped_at_the_prior_entropy_and_failures_count_as_the_cap() -> None:
    dataset = tiny_metadataset()
    loss = dataset.valid_loss.copy()
    loss[0, 0, -1] = 1e6  # worse than having learned nothing, though it did not diverge
    objective = replace(dataset, valid_loss=loss).objective()
    cap = np.array([task.prior_entropy for task in dataset.tasks], np.float32)[:, None]
    ok = dataset.status == Status.OK
    assert objective.dtype == np.float32
    assert objective[0, 0] == cap[0, 0]
    assert (~ok).any()
    np.testing.assert_array_equal(objective[~ok], np.broadcast_to(cap, ok.shape)[~ok])
    np.testing.assert_array_equal(objective[ok][1:], dataset.valid_loss[:, :, -1][ok][1:])


def test_objective_of_an_early_point_does_not_know_that_the_run_will_diverge() -> None:
    dataset = tiny_metadataset()
    failed = dataset.status != Status.OK
    early = dataset.objective(0)
    np.testing.assert_array_equal(early[failed], dataset.valid_loss[:, :, 0][failed])
    assert (early[failed] < dataset.objective()[failed]).all()


def test_select_keeps_the_order_that_is_asked_for() -> None:
    dataset = tiny_metadataset()
    part = dataset.select(["task-2", "task-0"])
    part.validate(strict=True)
    assert [task.name for task in part.tasks] == ["task-2", "task-0"]
    for field in (*CURVES, "flops", "status", "diverged_at"):
        np.testing.assert_array_equal(getattr(part, field), getattr(dataset, field)[[2, 0]])
    assert [entry["task"] for entry in part.provenance] == ["task-0", "task-2"]
    assert part.u is dataset.u


def test_without_base_leaves_no_task_of_it() -> None:
    dataset = tiny_metadataset()
    assert dataset.bases == ("base-0", "base-1")
    assert [task.name for task in dataset.without_base("base-0").tasks] == ["task-2", "task-3"]
    assert dataset.without_base("digits").content_hash == dataset.content_hash


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d.index("task-9"), ["'task-9'", "did you mean 'task-"]),
        (lambda d: d.select([]), ["at least one"]),
        (lambda d: d.select(["task-1", "task-1"]), ["'task-1' twice"]),
        (lambda d: d.without_base("base-0").without_base("base-1"), ["at least one"]),
    ],
    ids=["unknown", "none", "twice", "nothing left"],
)
def test_choosing_tasks_that_make_no_sense_is_refused(call, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        call(tiny_metadataset())
    assert all(word in str(caught.value) for word in words), caught.value


def test_configurations_come_in_natural_values_without_inactive_ones() -> None:
    dataset = tiny_metadataset()
    configs = dataset.configs()
    assert dataset.active.shape == dataset.u.shape
    for config, active in zip(configs, dataset.active, strict=True):
        assert [name in config for name in dataset.space] == active.tolist()
        assert ("momentum" in config) == (config["optimiser"] == "sgd")
    assert {config["optimiser"] for config in configs} == {"sgd", "adam"}


def test_content_hash_is_of_the_content_alone() -> None:
    dataset = tiny_metadataset()
    names = [task.name for task in dataset.tasks]
    payload = np.where(np.isnan(dataset.valid_loss), -np.float32(np.nan), dataset.valid_loss)  # another bit pattern
    same = [with_provenance(dataset, seconds=3), dataset.select(names[::-1]), replace(dataset, valid_loss=payload)]
    assert {other.content_hash for other in same} == {dataset.content_hash}


@pytest.mark.parametrize("field", ARRAYS)
def test_content_hash_sees_one_number_of(field: str) -> None:
    dataset = tiny_metadataset()
    array = getattr(dataset, field).copy()
    array.flat[0] = Status.FAILED if field == "status" else 0.125
    assert replace(dataset, **{field: array}).content_hash != dataset.content_hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "x"),
        ("base", "x"),
        ("licence", "x"),
        ("n_train", 7),
        ("prior_entropy", 0.5),
        ("descriptor", np.zeros(3)),
    ],
)
def test_content_hash_sees_each_fact_of_a_task(field: str, value: object) -> None:
    dataset = tiny_metadataset()
    tasks = (replace(dataset.tasks[0], **{field: value}), *dataset.tasks[1:])
    assert replace(dataset, tasks=tasks).content_hash != dataset.content_hash


def test_summary_counts_failures_and_tells_even_from_uneven_coverage() -> None:
    dataset = tiny_metadataset()
    status = dataset.status.copy()
    status[2, :4] = Status.FAILED
    summary = summarise(replace(dataset, status=status))
    assert (summary["tasks"], summary["bases"], summary["configurations"], summary["points"]) == (4, 2, 16, 3)
    assert summary["failed"] == pytest.approx((status != Status.OK).mean())
    assert summary["worst_task"] == "task-2"
    assert summary["per_task"]["task-2"]["failed"] == summary["worst_failed"]
    assert summary["flops"] == pytest.approx(dataset.flops[:, :, -1].sum())
    for facts in summary["per_task"].values():
        assert facts["best"] < facts["median"] <= facts["worst"]
    lumped = summarise(replace(dataset, u=np.full_like(dataset.u, 0.5)))
    assert lumped["discrepancy"] > 2 * lumped["random_discrepancy"]
    json.dumps(summary, allow_nan=False)


# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 16, 3), (1, 2, 1), (3, 33, 7)])
def test_round_trip_is_exact(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    dataset = tiny_metadataset(*shape)
    loaded = load_metadataset(save_metadataset(dataset, tmp_path / "deep" / "folder"))
    assert loaded.content_hash == dataset.content_hash
    for field in fields(MetaDataset):
        before, after = getattr(dataset, field.name), getattr(loaded, field.name)
        if field.name in ARRAYS:
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        elif field.name != "tasks":
            assert before == after
    for before, after in zip(dataset.tasks, loaded.tasks, strict=True):
        np.testing.assert_array_equal(before.descriptor, after.descriptor)
        assert {**vars(before), "descriptor": 0} == {**vars(after), "descriptor": 0}


def test_round_trip_without_descriptors(tmp_path: Path) -> None:
    dataset = tiny_metadataset()
    bare = tuple(replace(task, descriptor=np.zeros(0, np.float32)) for task in dataset.tasks)
    dataset = replace(dataset, descriptor_names=(), tasks=bare)
    assert load_metadataset(save_metadataset(dataset, tmp_path / "m")).content_hash == dataset.content_hash


def test_files_do_not_depend_on_when_or_in_whose_company_they_are_written(tmp_path: Path) -> None:
    dataset = tiny_metadataset()
    first = save_metadataset(dataset, tmp_path / "first")
    second = save_metadataset(with_provenance(dataset, machine="another"), tmp_path / "second")
    for path in first.iterdir():
        same = path.read_bytes() == (second / path.name).read_bytes()
        assert same == (path.name != "provenance.jsonl")


def test_provenance_may_be_left_out_or_edited(tmp_path: Path) -> None:
    folder = save_metadataset(tiny_metadataset(), tmp_path / "m")
    (folder / "provenance.jsonl").write_text('{"edited": true}\n')
    assert load_metadataset(folder).provenance == ({"edited": True},)
    (folder / "provenance.jsonl").unlink()
    assert load_metadataset(folder).provenance == ()


def test_forty_five_tasks_of_random_numbers_fit_the_package(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dataset = tiny_metadataset(45, 256, 10)
    noise = {
        field: (getattr(dataset, field) * rng.uniform(0.5, 1.0, dataset.flops.shape)).astype(
            getattr(dataset, field).dtype
        )
        for field in (*CURVES, "flops")
    }
    folder = save_metadataset(replace(dataset, **noise), tmp_path / "m")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6


def test_saving_again_replaces_the_old_one_and_leaves_one_folder(tmp_path: Path) -> None:
    save_metadataset(tiny_metadataset(seed=0), tmp_path / "m")
    (tmp_path / "m" / "stray").write_text("gone afterwards")
    save_metadataset(tiny_metadataset(seed=1), tmp_path / "m")
    assert load_metadataset(tmp_path / "m").content_hash == tiny_metadataset(seed=1).content_hash
    assert os.listdir(tmp_path) == ["m"]
    assert len(os.listdir(tmp_path / "m")) == 5


@pytest.mark.parametrize("earlier", [True, False], ids=["over an earlier one", "new"])
@pytest.mark.parametrize("step", range(7))
def test_full_disk_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, earlier: bool
) -> None:
    """Every file, the folder and its parent are synced: one after another they fail."""
    old, new = tiny_metadataset(seed=0), tiny_metadataset(seed=1)
    if earlier:
        save_metadataset(old, tmp_path / "m")
    calls = iter(range(100))

    def fsync(handle: int) -> None:
        if next(calls) == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="no space left on device"):
        save_metadataset(new, tmp_path / "m")
    is_swapped = step == 6
    assert os.listdir(tmp_path) == (["m"] if earlier or is_swapped else [])
    if os.listdir(tmp_path):
        assert load_metadataset(tmp_path / "m").content_hash == (new if is_swapped else old).content_hash
    save_metadataset(new, tmp_path / "m")
    assert load_metadataset(tmp_path / "m").content_hash == new.content_hash


def test_failed_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tiny_metadataset(seed=0)
    save_metadataset(old, tmp_path / "m")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".tmp-" in self.name:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="permission denied"):
        save_metadataset(tiny_metadataset(seed=1), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]
    assert load_metadataset(tmp_path / "m").content_hash == old.content_hash


def damaged(path: Path, content: bytes) -> str | None:
    """What the loader says of a folder with one other file: a sentence, or None when it finds nothing wrong."""
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        loaded = load_metadataset(path.parent)
    except MetaHPOError as error:
        return str(error)
    finally:
        path.write_bytes(original)
    assert loaded.content_hash == tiny_metadataset().content_hash, "another meta-dataset was read without a word"
    return None


@pytest.mark.parametrize(
    "name", ["manifest.json", "tasks.parquet", "configs.parquet", "curves.parquet", "provenance.jsonl"]
)
def test_a_damaged_file_is_never_read_as_something_else(tmp_path: Path, name: str) -> None:
    path = save_metadataset(tiny_metadataset(), tmp_path / "m") / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in {0, 1, 4, len(whole) // 2, *(len(whole) - k for k in (2, 4, 8, 100))}:
        said = damaged(path, whole[:cut])
        assert name == "provenance.jsonl" or (said is not None and name in said)
    for position in rng.integers(len(whole), size=40):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        said = damaged(path, bytes(flipped))
        assert said is None or name in said
        assert said is not None or not name.endswith(".parquet")
    assert load_metadataset(path.parent).content_hash == tiny_metadataset().content_hash


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_strict_json_reads_what_the_standard_writes(value: object, is_ascii: bool) -> None:
    try:
        data = json.dumps(value, ensure_ascii=is_ascii).encode()
    except UnicodeEncodeError:  # a lone surrogate, which has no UTF-8
        return
    assert strict_json(data, "file") == value


@given(st.binary() | st.text('[]{}":,0123456789.eE+-\\ntrufalsN').map(str.encode))
def test_strict_json_reads_anything_or_says_so(data: bytes) -> None:
    try:
        strict_json(data, "file")
    except StoreError as error:
        assert str(error).startswith("file")


def test_the_package_tells_how_to_build_what_it_comes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    for name in (None, "tabular"):
        with pytest.raises(StoreError, match="metahpo build --out"):
            load_metadataset(name)


def test_the_package_data_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_metadataset(tiny_metadataset(), tmp_path / "data" / "tabular")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert (
        load_metadataset().content_hash == load_metadataset("tabular").content_hash == tiny_metadataset().content_hash
    )
