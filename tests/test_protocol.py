"""Leave-one-data-set-out: nothing of a held-out task reaches what is learned, and scoring never reaches a proposer."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_metadataset

from metahpo_jax.base import Status
from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.evaluation.methods import METHODS, Training
from metahpo_jax.evaluation.protocol import leave_one_base_out, run_benchmark, trials_to_reach

CHEAP = ["random", "sobol", "grid", "portfolio"]
LEARNED = [name for name, method in METHODS.items() if method.learn is not None]


@pytest.fixture(scope="module")
def dataset():
    return tiny_metadataset(tasks=4, configs=24)


@pytest.fixture(scope="module")
def result(dataset):
    return run_benchmark(dataset, list(METHODS), trials=8, seeds=2)


def test_every_method_runs_on_every_task_and_seed(dataset, result) -> None:
    assert [run.name for run in result.runs] == list(METHODS)
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


def test_all_trials_of_the_pool_find_the_best(dataset) -> None:
    full = run_benchmark(dataset, CHEAP, trials=24, seeds=1)
    for run in full.runs:
        np.testing.assert_array_equal(run.regret[..., -1], 0.0)


@pytest.mark.parametrize("name", LEARNED)
def test_a_held_out_task_is_never_learned_from(name: str, dataset) -> None:
    """Whatever the held-out task's losses are, what the fold learns stays bit by bit the same."""
    loss = dataset.objective()
    folds = leave_one_base_out([task.base for task in dataset.tasks])

    def learned(table: np.ndarray):
        training = Training(dataset.space, dataset.u, table, folds.train[:1], trials=8)
        learn = METHODS[name].learn
        assert learn is not None
        return learn(training, jax.random.key(0))[0]

    changed = loss.copy()
    changed[0] = loss[0][::-1] * 7.0
    for a, b in zip(jax.tree.leaves(learned(loss)), jax.tree.leaves(learned(changed)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", ["gp", "pretrained_gp"])
def test_a_row_that_is_never_tried_changes_no_proposal(name: str, dataset, tmp_path) -> None:
    """The table's extremes serve for scoring only: whatever an untried row of a task holds, the task's trials stay the same."""

    def rows_of_task_0(data, folder: str) -> np.ndarray:
        run_benchmark(data, [name], trials=6, seeds=1, parts=tmp_path / folder)
        with np.load(tmp_path / folder / f"{name}.npz") as part:
            return part["rows"][0, 0]

    before = rows_of_task_0(dataset, "before")
    loss = dataset.objective()[0]
    hidden = min(set(range(len(loss))) - set(before.tolist()), key=lambda row: loss[row])
    valid, status = dataset.valid_loss.copy(), dataset.status.copy()
    valid[0, hidden], status[0, hidden] = np.nan, int(Status.DIVERGED)  # the best of the untried is now the worst
    changed = dataclasses.replace(dataset, valid_loss=valid, status=status)
    np.testing.assert_array_equal(before, rows_of_task_0(changed, "after"))


def test_names_of_one_base_are_held_out_together() -> None:
    folds = leave_one_base_out(["a", "b", "a", "c"])
    assert folds.bases == ("a", "b", "c")
    np.testing.assert_array_equal(folds.train[0], [False, True, False, True])
    np.testing.assert_array_equal(folds.of_task, [0, 1, 0, 2])


def test_one_base_alone_is_refused() -> None:
    with pytest.raises(SplitError, match="at least two"):
        leave_one_base_out(["a", "a"])


def test_finished_methods_are_kept(dataset, tmp_path) -> None:
    first = run_benchmark(dataset, ["random"], trials=4, seeds=2, parts=tmp_path)
    calls = []
    again = run_benchmark(
        dataset, ["random"], trials=4, seeds=2, parts=tmp_path, progress=lambda *call: calls.append(call)
    )
    np.testing.assert_array_equal(first.runs[0].regret, again.runs[0].regret)
    assert calls == [] and first.runs[0].seconds == again.runs[0].seconds
    run_benchmark(dataset, ["random"], trials=5, seeds=2, parts=tmp_path, progress=lambda *call: calls.append(call))
    assert len(calls) == 2, "parts of another run must not be used"


@pytest.mark.parametrize(
    ("names", "trials", "seeds", "word"),
    [
        ([], 4, 1, "at least one method"),
        (["randon"], 4, 1, "did you mean 'random'"),
        (["gp", "gp"], 4, 1, "twice"),
        (["random"], 0, 1, "trials"),
        (["random"], 25, 1, "trials"),
        (["random"], 4, 0, "seeds"),
    ],
)
def test_bad_arguments(dataset, names, trials, seeds, word) -> None:
    with pytest.raises(ConfigError, match=word):
        run_benchmark(dataset, names, trials=trials, seeds=seeds)


def test_trials_to_reach() -> None:
    assert trials_to_reach(np.asarray([0.5, 0.2, 0.1]), 0.2) == 2
    assert trials_to_reach(np.asarray([0.5, 0.2]), 0.1) is None
