"""A build can be stopped anywhere and gives the same content; the log of another build is refused."""

import numpy as np
import pytest

from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.learners import logistic_family, mlp_space
from metahpo_jax.metadata import load_metadataset, save_metadataset
from metahpo_jax.metadata.builder import BuildPlan, build, build_meta_dataset, configurations, make_plan, task_id
from metahpo_jax.tasks import bundled

SAMPLES = 768 * 81 // 4  # a quarter of a run, whose first two points are one


@pytest.fixture(scope="module")
def plan() -> BuildPlan:
    return BuildPlan("bundled", bundled(), logistic_family(), ("iris", "wine"), 8, samples=SAMPLES)


@pytest.fixture(scope="module")
def built(plan, tmp_path_factory):
    log = tmp_path_factory.mktemp("build") / "log"
    return build(plan, log), log


def test_a_log_cut_anywhere_gives_the_same_content(plan, built, tmp_path) -> None:
    whole, log = built
    content = log.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 7, len(content) - 1, *rng.integers(1, len(content), 3)):
        part = tmp_path / "log"
        part.write_bytes(content[:cut])
        assert build(plan, part).content_hash == whole.content_hash


def test_a_damaged_record_is_trained_again(plan, built, tmp_path) -> None:
    whole, log = built
    content = bytearray(log.read_bytes())
    content[-100] ^= 0xFF
    (tmp_path / "log").write_bytes(content)
    trained = []
    assert build(plan, tmp_path / "log", lambda now: trained.append(now.trained)).content_hash == whole.content_hash
    assert 0 < trained[-1] < 16


def test_what_is_done_is_not_done_again(plan, built) -> None:
    progress = []
    again = build(plan, built[1], progress.append)
    assert again.content_hash == built[0].content_hash
    assert progress[-1].trained == 0 and progress[-1].done == progress[-1].total == 16


def test_what_was_built_is_complete_and_can_be_stored(built, tmp_path) -> None:
    data, _ = built
    data.validate()
    assert data.valid_loss.shape == (2, 8, 9) and np.isfinite(data.objective()).all()
    assert (np.diff(data.flops, axis=2) > 0).all()
    assert data.provenance[0]["trainings"] == 16 and data.provenance[0]["useful_flops"] == data.flops[..., -1].sum()
    save_metadataset(data, tmp_path / "stored")
    assert load_metadataset(tmp_path / "stored", strict=False).content_hash == data.content_hash


def test_the_log_of_another_build_is_refused(plan, built) -> None:
    with pytest.raises(StoreError, match="other settings"):
        build(plan.again(2), built[1])


def test_a_second_time_is_another_run_of_the_same(plan, built, tmp_path) -> None:
    again = build(plan.again(2), tmp_path / "log")
    np.testing.assert_array_equal(again.u, built[0].u[:2])
    assert (again.valid_loss != built[0].valid_loss[:, :2]).any()


def test_building_from_python_saves_and_cleans_up(tmp_path) -> None:
    family = bundled()
    data = build_meta_dataset(
        family, learner=logistic_family(batch_size=64), configurations=2, samples=768, out=tmp_path / "own"
    )
    assert load_metadataset(tmp_path / "own", strict=False).content_hash == data.content_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own"]


def test_configurations_and_task_numbers_are_fixed() -> None:
    space = mlp_space()
    np.testing.assert_array_equal(configurations(space, 16, 0), configurations(space, 16, 0))
    np.testing.assert_array_equal(configurations(space, 8, 0), configurations(space, 16, 0)[:8])
    assert not np.array_equal(configurations(space, 16, 0), configurations(space, 16, 1))
    assert task_id("wine") == task_id("wine") != task_id("iris")


@pytest.mark.parametrize(
    ("family", "tasks", "configs", "word"),
    [("x", 1, 1, "family"), ("bundled", 0, 1, "tasks"), ("bundled", 1, 0, "conf")],
)
def test_plans_that_make_no_sense_are_refused(family, tasks, configs, word) -> None:
    with pytest.raises(ConfigError, match=word):
        make_plan(family, tasks, configs, 0)
