"""Running a benchmark: nothing of a held-out task reaches what is learned, and scoring never reaches a proposer."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_archive, tiny_metadataset

from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.evaluation.benchmarks import Benchmark, load_benchmark, tabular_benchmark
from metahpo_jax.evaluation.methods import METHODS
from metahpo_jax.evaluation.protocol import (
    applicable_methods,
    default_trials,
    run_benchmark,
    run_method,
    trainings,
)
from metahpo_jax.evaluation.splits import by_base, by_space
from metahpo_jax.evaluation.statistics import trials_to_reach
from metahpo_jax.metadata import archive_of
from metahpo_jax.metalearners.pretrained_gp import OPENING_TRIALS
from metahpo_jax.tasks import stacked

CHEAP = ["random", "sobol", "grid", "portfolio", "portfolio_imagined", "empirical_gaussian"]
RECORDED = [name for name, method in METHODS.items() if not method.trains]
LEARNED = [name for name in RECORDED if METHODS[name].learn is not None]


@pytest.fixture(scope="module")
def benchmark_(dataset) -> Benchmark:
    return tabular_benchmark(archive_of(dataset))


@pytest.fixture(scope="module")
def unshared() -> Benchmark:
    """Different configurations per task, two spaces, failures, three starts."""
    archive = tiny_archive()
    starts = np.tile(np.array([3, 0, 5]), (len(archive.tasks), 2, 1))
    return Benchmark(
        "tiny", archive, by_base(archive), "leave one data set out", "a rule", trials=6, budgets=(1, 5), starts=starts
    )


@pytest.fixture(scope="module")
def dataset():
    return tiny_metadataset(tasks=4, configs=24)


@pytest.fixture(scope="module")
def result(benchmark_):
    return run_benchmark(benchmark_, RECORDED, trials=8, seeds=2)


def test_every_method_runs_on_every_task_and_seed(dataset, result) -> None:
    assert [run.name for run in result.runs] == RECORDED
    for run in result.runs:
        assert run.regret.shape == (len(dataset.tasks), 2, 8)
        assert (np.diff(run.regret, axis=-1) <= 0).all() and (run.regret >= 0).all()
        assert (run.seconds > 0) and ((run.meta_seconds > 0) == (run.name in LEARNED))


def test_the_incumbent_explains_its_test_accuracy(dataset, result) -> None:
    loss = dataset.objective()
    run = result.runs[0]
    for t in range(len(loss)):
        row = int(np.argmin(np.abs(loss[t] - run.loss[t, 0, -1])))
        assert run.test_accuracy[t, 0, -1] == pytest.approx(dataset.test_accuracy[t, row, -1], nan_ok=True)


def test_all_trials_of_the_pool_find_the_best(benchmark_) -> None:
    full = run_benchmark(benchmark_, CHEAP, trials=24, seeds=1)
    for run in full.runs:
        np.testing.assert_array_equal(run.regret[..., -1], 0.0)


@pytest.mark.parametrize("name", LEARNED)
def test_a_held_out_task_is_never_learned_from(name: str, benchmark_) -> None:
    """Whatever the held-out task's losses are, what the fold learns stays bit by bit the same."""

    def learned(benchmark: Benchmark):
        (_, training), *_ = trainings(benchmark, "network", trials=8)
        learn = METHODS[name].learn
        assert learn is not None
        return learn([training], jax.random.key(0))

    tasks = list(benchmark_.archive.tasks)
    tasks[0] = dataclasses.replace(tasks[0], loss=tasks[0].loss[::-1] * 7.0)
    changed = dataclasses.replace(benchmark_, archive=dataclasses.replace(benchmark_.archive, tasks=tuple(tasks)))
    for a, b in zip(jax.tree.leaves(learned(benchmark_)), jax.tree.leaves(learned(changed)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(("name", "trials"), [("gp", 6), ("pretrained_gp", OPENING_TRIALS + 4)])
def test_the_best_row_hidden_from_scoring_changes_no_proposal(name: str, trials: int, benchmark_) -> None:
    """The table's extremes serve for scoring only: an untried best row may as well be the worst."""
    rows = run_method(benchmark_, METHODS[name], "network", trials=trials, seeds=1).rows[0, 0]
    tasks = list(benchmark_.archive.tasks)
    loss = tasks[0].loss.copy()
    hidden = min(set(range(len(loss))) - set(rows.tolist()), key=lambda row: loss[row, -1])
    loss[hidden] = tasks[0].scored.max()
    tasks[0] = dataclasses.replace(tasks[0], loss=loss)
    changed = dataclasses.replace(benchmark_, archive=dataclasses.replace(benchmark_.archive, tasks=tuple(tasks)))
    np.testing.assert_array_equal(
        rows, run_method(changed, METHODS[name], "network", trials=trials, seeds=1).rows[0, 0]
    )


def test_tasks_may_have_configurations_spaces_and_starts_of_their_own(unshared) -> None:
    names = ["random", "portfolio", "portfolio_then_sobol"]
    assert set(applicable_methods(unshared)) == {n for n in RECORDED if not METHODS[n].needs_shared}
    result = run_benchmark(unshared, names, seeds=2)
    assert result.starts == 3 and result.tasks == tuple(task.name for task in unshared.archive.tasks)
    for t, task in enumerate(unshared.archive.tasks):
        given = np.nanmin(task.told[0][[3, 0, 5]])
        for run in result.runs:
            assert run.loss is not None and (run.loss[t] <= given).all(), "starts count as told before the first trial"
            assert (run.regret[t] >= 0).all() and (run.regret[t] <= 1).all()


def test_starts_are_given_and_never_asked_for_again(unshared) -> None:
    for space in unshared.archive.spaces:
        tried = run_method(unshared, METHODS["random"], space, trials=6, seeds=2)
        for rows in tried.rows.reshape(-1, 6):
            assert len(set(rows) | {3, 0, 5}) == 9
        for t, rows in zip(tried.tasks, tried.rows, strict=True):
            assert rows.max() < len(unshared.archive.tasks[t].u), "a padded row is no configuration"


def test_shared_configurations_are_asked_for_where_they_are_needed(unshared) -> None:
    with pytest.raises(SplitError, match="needs the same configurations"):
        run_benchmark(unshared, ["empirical_gaussian"], seeds=1)
    with pytest.raises(ConfigError, match="published starts for 2 seeds"):
        run_benchmark(unshared, ["random"], seeds=3)


def test_without_training_tasks_learning_is_refused(unshared) -> None:
    folds = [fold._replace(train=np.zeros_like(fold.train)) for fold in unshared.folds]
    for name in ("portfolio", "pretrained_gp", "portfolio_then_random"):
        with pytest.raises(SplitError, match=r"needs at least 1 training task\(s\) over the space 'plain'"):
            run_benchmark(dataclasses.replace(unshared, folds=folds), [name], seeds=1)


def test_across_spaces_only_what_learns_nothing_applies(unshared) -> None:
    across = dataclasses.replace(unshared, folds=by_space(unshared.archive))
    assert applicable_methods(across) == ["random", "default", "sobol", "grid", "gp"]


def test_small_tables_shorten_the_default_run(unshared) -> None:
    assert default_trials(dataclasses.replace(unshared, trials=50)) == 7  # ten configurations, three of them given


def test_workers_change_nothing(unshared, tmp_path) -> None:
    names = ["random", "portfolio"]
    alone = run_benchmark(unshared, names, seeds=1)
    together = run_benchmark(unshared, names, seeds=1, workers=2, parts=tmp_path)
    for a, b in zip(alone.runs, together.runs, strict=True):
        np.testing.assert_array_equal(a.regret, b.regret)


def test_finished_methods_are_kept(benchmark_, tmp_path) -> None:
    first = run_benchmark(benchmark_, ["random"], trials=4, seeds=2, parts=tmp_path)
    calls = []
    again = run_benchmark(
        benchmark_, ["random"], trials=4, seeds=2, parts=tmp_path, progress=lambda *call: calls.append(call)
    )
    np.testing.assert_array_equal(first.runs[0].regret, again.runs[0].regret)
    assert calls == [("random", 2, 2)] and first.runs[0].seconds == again.runs[0].seconds
    calls.clear()
    run_benchmark(benchmark_, ["random"], trials=5, seeds=2, parts=tmp_path, progress=lambda *call: calls.append(call))
    assert len(calls) == 2, "parts of another run must not be used"


@pytest.mark.parametrize(
    ("names", "trials", "seeds", "word"),
    [
        ([], 4, 1, "at least one method"),
        (["randon"], 4, 1, "did you mean 'random'"),
        (["gp", "gp"], 4, 1, "twice"),
        (["portfolio_then_randon"], 4, 1, "did you mean 'portfolio_then_random'"),
        (["random"], 0, 1, "trials"),
        (["random"], 25, 1, "trials"),
        (["random"], 4, 0, "seeds"),
    ],
)
def test_bad_arguments(benchmark_, names, trials, seeds, word) -> None:
    with pytest.raises(ConfigError, match=word):
        run_benchmark(benchmark_, names, trials=trials, seeds=seeds)


def test_trials_to_reach() -> None:
    assert trials_to_reach(np.asarray([0.5, 0.2, 0.1]), 0.2) == 2
    assert trials_to_reach(np.asarray([0.5, 0.2]), 0.1) is None


def test_maml_starts_where_networks_trained_on_the_other_data_sets_do_well(monkeypatch, benchmark_) -> None:
    monkeypatch.setattr("metahpo_jax.metalearners.trained_start.META_STEPS", 3)
    monkeypatch.setattr("metahpo_jax.metalearners.trained_start.STEPS", 5)
    bundled = load_benchmark("bundled")
    assert "maml" not in applicable_methods(bundled), "it takes minutes: on request only"
    tested, folds = zip(*trainings(bundled, "network", trials=2), strict=True)
    learn = METHODS["maml"].learn
    assert learn is not None
    learned = [np.asarray(pools[0]) for pools in learn(folds, jax.random.key(0))]
    assert all(start.min() >= 0.0 and start.max() <= 1.0 for start in learned)

    held_out = bundled.archive.tasks[tested[0][0]].name

    def spoiled(family, names):
        tasks = stacked(family, names)
        x = tasks.train.x.at[list(names).index(held_out)].multiply(-3.0)
        return tasks.replace(train=tasks.train.replace(x=x))

    with monkeypatch.context() as patched:
        patched.setattr("metahpo_jax.metalearners.trained_start.stacked", spoiled)
        again = [np.asarray(pools[0]) for pools in learn(folds, jax.random.key(0))]
    assert [np.array_equal(a, b) for a, b in zip(learned, again, strict=True)] == [True, False, False, False], held_out
    (run,) = run_benchmark(bundled, ["maml"], trials=2, seeds=1).runs
    assert np.isfinite(run.regret).all() and run.meta_seconds > 0
    with pytest.raises(
        SplitError, match="trains networks on the data sets behind the tasks, of which tiny has records only"
    ):
        run_benchmark(benchmark_, ["maml"], trials=2, seeds=1)
