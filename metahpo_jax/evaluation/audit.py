"""Does a method know what it was never told? Its proposals must not depend on losses that it did not ask for.

One fold is run twice: on the tables as they are, and on tables in which every held-out loss that the first run was not told has been
replaced. Whatever reaches a proposal by another way than `tell` (a target scaled by the whole table, a test task among the training tasks,
a constant fitted on test data) moves some proposal.

What it cannot see: a number that somebody fitted on these tables beforehand and wrote into the method is the same in both runs. And it sees
only the trials that it runs: a method that opens with a list must be given enough of them for its model to choose.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import SplitError
from metahpo_jax.evaluation.benchmarks import Benchmark
from metahpo_jax.evaluation.methods import Method
from metahpo_jax.evaluation.protocol import run_method


def audit(
    benchmark: Benchmark,
    method: Callable[[Benchmark], Method],
    *,
    trials: int,
    fold: int = 0,
    seeds: int = 1,
    key_seed: int = 0,
) -> None:
    """Passes if what a method proposes on the held-out tasks of a fold follows from what it was told.

    Args:
        benchmark: Whose tables are used.
        method: Makes the method; it is given the benchmark that it will run on, so that whatever it takes from there is seen.
        trials: Of each run.
        fold: Which fold is run, alone: elsewhere its held-out tasks may rightly be learned from.
        seeds: Runs per task.
        key_seed: Of everything random.

    Raises:
        SplitError: naming the first task and trial at which the proposals part.
    """
    alone = replace(benchmark, folds=[benchmark.folds[fold]])
    spaces = dict.fromkeys(benchmark.archive.tasks[t].space for t in alone.tested)
    for space in spaces:
        honest = run_method(alone, method(alone), space, trials=trials, seeds=seeds, key_seed=key_seed)
        known = {
            t: np.union1d(rows, [] if alone.starts is None else alone.starts[t, :seeds]).astype(int)
            for t, rows in zip(honest.tasks, honest.rows, strict=True)
        }
        other = with_untold_replaced(alone, known)
        again = run_method(other, method(other), space, trials=trials, seeds=seeds, key_seed=key_seed)
        if not np.array_equal(honest.rows, again.rows):
            k, seed, trial = np.argwhere(honest.rows != again.rows)[0]
            task = benchmark.archive.tasks[honest.tasks[k]].name
            raise SplitError(
                f"a leak: proposal {trial + 1} on task {task!r}, seed {seed}, changed with losses that the method was never told; see what "
                "it reads beside its history and its training tasks."
            )


def with_untold_replaced(benchmark: Benchmark, told: dict[int, np.ndarray]) -> Benchmark:
    """The benchmark with other losses wherever they are not among the rows `told[task]`: made up, and better than any told."""
    rng = np.random.default_rng(0)
    tasks = list(benchmark.archive.tasks)
    for t, rows in told.items():
        task = tasks[t]
        untold = np.setdiff1d(np.arange(len(task.u)), rows)
        span = max(float(np.ptp(task.scored)), 1e-3)
        loss = task.loss.copy()
        made_up = task.scored.min() - span * rng.uniform(0.5, 4.0, (len(untold), 1)).astype(np.float32)
        loss[untold] = np.broadcast_to(made_up, (len(untold), loss.shape[1]))
        status = task.status.copy()
        status[untold] = Status.OK
        tasks[t] = replace(task, loss=loss, status=status)
    return replace(benchmark, archive=replace(benchmark.archive, tasks=tuple(tasks)))
