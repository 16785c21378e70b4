"""A build can be stopped anywhere and gives the same content; parts of another build never get in."""

import numpy as np
import pytest

from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.metadata import load_metadataset, save_metadataset
from metahpo_jax.metadata.builder import (
    assemble,
    build,
    configurations,
    make_plan,
    part_path,
    run_unit,
    task_id,
    units,
)


@pytest.fixture(scope="module")
def plan():
    return make_plan("bundled", 1, 2, seed=0)


@pytest.fixture(scope="module")
def built(plan, tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    for unit in units(plan, parts):
        assert run_unit(unit) == len(unit.rows) * len(unit.tasks)
    return parts


def test_what_is_done_is_not_done_again_and_what_is_lost_is(plan, built) -> None:
    whole = assemble(plan, built)
    first = units(plan, built)[0]
    part_path(first, plan.tasks[0]).unlink()
    with pytest.raises(StoreError, match="is missing"):
        assemble(plan, built)
    assert [run_unit(unit) for unit in units(plan, built)] == [len(first.rows)] + [0] * (len(units(plan, built)) - 1)
    assert assemble(plan, built).content_hash == whole.content_hash


def test_what_was_built_is_complete_and_can_be_stored(plan, built, tmp_path) -> None:
    data = assemble(plan, built)
    data.validate()
    assert data.valid_loss.shape == (1, 2, 10) and np.isfinite(data.objective()).all()
    assert (np.diff(data.flops, axis=2) > 0).all()
    folder = tmp_path / "stored"
    save_metadataset(data, folder)
    again = load_metadataset(folder, strict=False)
    assert again.content_hash == data.content_hash
    assert {entry["task"] for entry in again.provenance if "task" in entry} == {data.tasks[0].name}


def test_parts_of_another_build_are_refused(built) -> None:
    (built / "build.json").write_text('{"identity": "another"}')
    with pytest.raises(StoreError, match="another build"):
        next(build(make_plan("bundled", 1, 2, seed=1), built))


def test_configurations_and_task_numbers_are_fixed() -> None:
    np.testing.assert_array_equal(configurations(16, 0), configurations(16, 0))
    assert not np.array_equal(configurations(16, 0), configurations(16, 1))
    assert task_id("wine") == task_id("wine") != task_id("iris")


@pytest.mark.parametrize(
    ("family", "tasks", "configs", "word"),
    [("x", 1, 1, "family"), ("bundled", 0, 1, "tasks"), ("bundled", 1, 0, "conf")],
)
def test_plans_that_make_no_sense_are_refused(family, tasks, configs, word) -> None:
    with pytest.raises(ConfigError, match=word):
        make_plan(family, tasks, configs, 0)
