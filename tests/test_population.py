"""A population is its members trained one by one: grouped, chunked, spread, logged and halved without changing what they find."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_task

from metahpo_jax.base import Status
from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.learners import capacities, logistic_family, mlp_family
from metahpo_jax.population import ResultLog, Rung, configure, train_population
from metahpo_jax.population.plan import executed_flops, plan, shape_of
from metahpo_jax.population.programs import Schedule, whole_runs
from metahpo_jax.tasks import TaskShape

FAMILY = logistic_family()  # three capacities that compile fast
NETWORKS = mlp_family(depth=1, width=8, batch_size=16)
SMALL = {"horizon": 768, "points": (256, 768)}


def points(family, count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).random((count, family.space.size))
    return np.asarray([family.space.encode(family.space.decode(r)) for r in rows], np.float32)


def keys(tasks: int, seeds: int):
    return jax.random.split(jax.random.key(0), tasks * seeds).reshape(tasks, seeds)


TASKS = [make_task(seed=0), make_task(seed=1), make_task(seed=2, padded=(16, 4))]


@pytest.fixture(scope="module")
def population():
    return train_population(FAMILY, points(FAMILY, 5), TASKS, keys(3, 2), **SMALL)


def test_a_population_equals_its_members_one_by_one(population) -> None:
    u = points(FAMILY, 5)
    assert population.curve.valid_loss.shape == (3, 2, 5, 2)
    for task, seed, i in ((0, 0, 0), (1, 1, 3), (2, 0, 4)):
        alone = train_population(
            FAMILY, u[i : i + 1], [TASKS[task]], keys(3, 2)[task : task + 1, seed : seed + 1], **SMALL
        )
        np.testing.assert_allclose(
            alone.curve.valid_loss[0, 0, 0], population.curve.valid_loss[task, seed, i], rtol=1e-3
        )
    assert (population.flops[..., 1] == 3 * population.flops[..., 0]).all()
    assert 0 < population.flops[..., 1].sum() <= population.executed


def test_divergence_is_recorded_from_the_point_where_it_shows() -> None:
    u = points(NETWORKS, 12, seed=3)
    u[:6, NETWORKS.space.names.index("learning_rate")] = 1.0
    found = train_population(NETWORKS, u, TASKS[:1], keys(1, 1), **SMALL)
    bad = found.curve.status == Status.DIVERGED
    assert (np.isnan(found.curve.valid_loss) == bad).all() and not (bad[..., 0] & ~bad[..., 1]).any()
    assert (np.isfinite(found.diverged_at) == bad[..., -1]).all()


def test_a_log_is_read_back_bit_by_bit(population, tmp_path) -> None:
    u, path = points(FAMILY, 5), tmp_path / "log"
    arguments = (FAMILY, u, TASKS, keys(3, 2))
    log = ResultLog(path, "one")
    whole = train_population(*arguments, **SMALL, log=log)
    log.close()
    np.testing.assert_array_equal(whole.curve.valid_loss, population.curve.valid_loss)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    progress, log = [], ResultLog(path, "one")
    resumed = train_population(*arguments, **SMALL, log=log, progress=progress.append)
    log.close()
    np.testing.assert_array_equal(resumed.curve.valid_loss, whole.curve.valid_loss)
    assert 0 < progress[0].done < progress[-1].done == progress[-1].total == 30
    assert progress[-1].trained == 30 - progress[0].done
    with pytest.raises(StoreError, match="other settings"):
        ResultLog(path, "two")


def test_only_the_best_of_a_rung_go_on() -> None:
    family = logistic_family(batch_size=16)
    u = points(family, 8, seed=1)
    whole = train_population(family, u, TASKS[:1], keys(1, 1), horizon=768, points=(256, 512, 768))
    halved = train_population(
        family, u, TASKS[:1], keys(1, 1), horizon=768, points=(256, 512, 768), rungs=(Rung(256, 0.5), Rung(512, 0.5))
    )
    first = whole.curve.valid_loss[0, 0, :, 0]
    kept = np.isfinite(halved.curve.valid_loss[0, 0])
    np.testing.assert_array_equal(halved.curve.valid_loss[0, 0, :, 0], first)
    assert kept.sum(0).tolist() == [8, 4, 2]
    assert set(np.flatnonzero(kept[:, 1])) == set(np.argsort(first)[:4])
    survivors = kept[:, 2]
    np.testing.assert_allclose(
        halved.curve.valid_loss[0, 0, survivors], whole.curve.valid_loss[0, 0, survivors], rtol=1e-4
    )
    assert (np.asarray(halved.curve.status)[0, 0][~kept] == Status.STOPPED).all()


def test_padding_takes_no_place_at_a_rung() -> None:
    family = logistic_family(batch_size=16)
    config, (capacity, *_) = family.configs(points(family, 5, seed=1))
    learner = family.learner(capacity, shape_of(TASKS[0]), 768, (256, 768))
    lanes = np.asarray([0, 1, 2, 3, 4, 4, 4, 4])

    def finished(rungs: tuple[Rung, ...]) -> np.ndarray:
        h = jax.tree.map(lambda x: jnp.asarray(x[lanes]), config)
        schedule = Schedule(768, (256, 768), rungs)
        run = jax.jit(lambda key: whole_runs(learner, schedule, key, h, TASKS[0], jnp.int32(5))[0])
        return np.asarray(run(jax.random.key(0)).valid_loss)

    loss = finished(())[:5, 0]
    kept = np.isfinite(finished((Rung(256, 0.5),))[:5, 1])
    assert np.flatnonzero(~kept).tolist() == [int(np.argmax(loss))], (
        "four of eight lanes go on: all real ones but the worst"
    )


def test_training_ends_at_the_last_point() -> None:
    family = logistic_family(batch_size=16)
    short, long = (
        train_population(family, points(family, 2), TASKS[:1], keys(1, 1), horizon=768, points=p)
        for p in ((256,), (256, 768))
    )
    np.testing.assert_array_equal(short.curve.valid_loss[..., 0], long.curve.valid_loss[..., 0])
    assert short.executed == long.executed / 3


@pytest.mark.parametrize("content", [b"", b"mh", b"notes on my paper, which are longer than a header"])
def test_only_a_log_that_was_begun_is_written_to(content: bytes, tmp_path) -> None:
    path = tmp_path / "paper.log"
    path.write_bytes(content)
    if b"mhpo".startswith(content):
        ResultLog(path, "one").close()
    else:
        with pytest.raises(StoreError, match="not the log of a build"):
            ResultLog(path, "one")
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"points": (512, 256)}, "increase"),
        ({"points": (256, 1024)}, "horizon"),
        ({"rungs": (Rung(300, 0.5),)}, "among the points"),
        ({"rungs": (Rung(256, 0.0),)}, "share"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(change: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        train_population(FAMILY, points(FAMILY, 1), TASKS[:1], keys(1, 1), **{**SMALL, **change})


def test_shapes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="u must have shape"):
        train_population(FAMILY, np.zeros((0, 8)), TASKS[:1], keys(1, 1))
    with pytest.raises(ConfigError, match="keys must have shape"):
        train_population(FAMILY, points(FAMILY, 1), TASKS, keys(1, 1))


@pytest.mark.parametrize(("count", "least"), [(512, 0.5), (4096, 0.5)])
def test_at_least_half_of_the_work_is_useful(count: int, least: float) -> None:
    family, shape = mlp_family(), TaskShape(4096, 1024, 32, 4)
    config, touched = family.configs(points(family, count, seed=6))
    groups = plan(family, touched, np.asarray(config.accumulate), [shape], seeds=1, horizon=1)
    task = make_task(features=30, padded=(32, 4))
    assert family.useful(config, touched, task).sum() / executed_flops(family, groups, 1) >= least
    assert sorted(i for g in groups for run in g.runs for i in run.lanes[: run.real]) == list(range(count))
    assert len(groups) == len(set(touched)) <= len(capacities()) == 45


def test_one_compilation_per_shape_and_capacity() -> None:
    family = logistic_family(batch_size=16, label_smoothing=0.0)
    seen = []
    train_population(family, points(family, 20), TASKS, keys(3, 2), horizon=128, points=(128,), progress=seen.append)
    assert seen[-1].programs == 2  # one micro-batch, two shapes
    seen.clear()
    train_population(family, points(family, 20), TASKS, keys(3, 2), horizon=128, points=(128,), progress=seen.append)
    assert seen[-1].programs == 0


def test_configuring_too_late_is_refused() -> None:
    jax.devices()
    configure(devices=jax.device_count("cpu"))  # as it is: nothing to change
    with pytest.raises(ConfigError, match="too late"):
        configure(devices=jax.device_count("cpu") + 1)
    with pytest.raises(ConfigError, match="at least 1"):
        configure(devices=0)


def test_two_devices_find_what_one_finds() -> None:
    program = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from metahpo_jax.population import configure, train_population
configure(devices=int(sys.argv[1]))
import jax
from test_population import FAMILY, TASKS, SMALL, keys, points
found = train_population(FAMILY, points(FAMILY, 3), TASKS[:2], keys(2, 1), **SMALL)
print(jax.device_count(), found.curve.valid_loss.tobytes().hex())
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    lines = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(devices), os.path.dirname(__file__)],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout.split()
        for devices in (1, 2)
    ]  # fmt: skip
    assert [line[0] for line in lines] == ["1", "2"]
    one, two = (np.frombuffer(bytes.fromhex(line[1]), np.float32) for line in lines)
    np.testing.assert_allclose(one, two, rtol=1e-4)


def test_a_small_group_keeps_all_devices_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metahpo_jax.population.plan.training_devices", lambda: jax.devices()[:1] * 2)
    _, touched = NETWORKS.configs(points(NETWORKS, 12))
    (group,) = plan(NETWORKS, touched, np.ones(12, int), [shape_of(TASKS[0])], seeds=1, horizon=768)
    assert (len(group.runs), group.lanes, group.per_call) == (2, 6, 1)
