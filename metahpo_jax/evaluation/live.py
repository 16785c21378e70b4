"""Live comparison: several proposers tune the same tasks by real training, in lockstep, so that a round trains as one population."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax import driver
from metahpo_jax.base import Context, Evaluation, Key, Proposer, Status, no_candidates, run_key
from metahpo_jax.errors import ConfigError
from metahpo_jax.evaluation.results import MethodRun
from metahpo_jax.evaluation.statistics import incumbent, incumbent_trial, normalised_regret
from metahpo_jax.history import capacity_for

# task index, configurations `[n, D]` -> losses `[n]` and test accuracies `[n]`, NaN where a run diverged
Evaluate = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Reference(NamedTuple):
    """What regret is against, per task: the best loss of a recorded table, and the loss of having learned nothing."""

    best: np.ndarray  # `[T]`
    worst: np.ndarray  # `[T]`


class Trials(NamedTuple):
    """Everything that one method did."""

    u: np.ndarray  # `[T, S, trials, D]`
    loss: np.ndarray  # `[T, S, trials]`, NaN where diverged
    accuracy: np.ndarray  # `[T, S, trials]`, on the test split
    seconds: float  # of proposing


def run_live(
    proposers: Mapping[str, Proposer], contexts: Sequence[Context], evaluate: Evaluate, *, trials: int, seeds: int, key: Key,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Trials]:  # fmt: skip
    """Tunes every task with every proposer and seed, one trial of all per round.

    A configuration that several runs ask for is trained once: training noise is that of the task (common random numbers), while the
    seed decides what a proposer tries.

    Raises:
      ConfigError: without proposers or tasks, or with trials or seeds below 1.
    """
    for name, value in (("proposers", len(proposers)), ("tasks", len(contexts)), ("trials", trials), ("seeds", seeds)):
        if value < 1:
            raise ConfigError(f"run_live: {name} must be at least 1, got {value}.")
    tasks, dimensions = len(contexts), contexts[0].space.kind.shape[0]
    context = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *contexts)
    empty = no_candidates(dimensions)
    keys = jax.vmap(lambda t: jax.vmap(lambda s: run_key(key, t, s))(jnp.arange(seeds)))(jnp.arange(tasks))
    lanes = {name: _lanes(proposer, empty, capacity_for(trials)) for name, proposer in proposers.items()}
    state = {name: start(keys, context) for name, (start, _, _) in lanes.items()}
    u = {name: np.zeros((tasks, seeds, trials, dimensions), np.float32) for name in proposers}
    loss = {name: np.full((tasks, seeds, trials), np.nan) for name in proposers}
    accuracy = {name: np.full((tasks, seeds, trials), np.nan) for name in proposers}
    seconds = dict.fromkeys(proposers, 0.0)
    for trial in range(trials):
        with ThreadPoolExecutor(len(lanes)) as pool:  # the first round compiles: side by side
            asked = dict(
                zip(lanes, pool.map(lambda name: timed(lanes[name][1], keys, state[name]), lanes), strict=True)
            )
        proposals = {}
        for name, ((proposals[name], state[name]), spent) in asked.items():
            u[name][:, :, trial] = np.asarray(proposals[name].u)
            seconds[name] += spent
        for task in range(tasks):
            wanted = np.concatenate([u[name][task, :, trial] for name in proposers])
            distinct, where = np.unique(wanted, axis=0, return_inverse=True)
            losses, accuracies = evaluate(task, distinct)
            for i, name in enumerate(proposers):
                mine = where.reshape(-1)[i * seeds : (i + 1) * seeds]
                loss[name][task, :, trial], accuracy[name][task, :, trial] = losses[mine], accuracies[mine]
            if progress:
                progress(trial * tasks + task + 1, trials * tasks)
        for name, (_, _, tell) in lanes.items():
            evaluation = Evaluation(
                loss=jnp.asarray(loss[name][:, :, trial], jnp.float32),
                cost=jnp.ones((tasks, seeds), jnp.float32),
                fidelity=proposals[name].fidelity,
                status=jnp.where(np.isfinite(loss[name][:, :, trial]), int(Status.OK), int(Status.DIVERGED)),
            )
            state[name] = tell(state[name], proposals[name], evaluation)
    return {name: Trials(u[name], loss[name], accuracy[name], seconds[name]) for name in proposers}


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, waited for, and the seconds that it took."""
    began = time.perf_counter()
    return jax.block_until_ready(function(*arguments)), time.perf_counter() - began


def _lanes(proposer: Proposer, empty, capacity: int):
    """`start`, `ask` and `tell` over `[tasks, seeds]`."""

    def start(key, context):
        return driver.start(key, proposer, context, capacity)

    def ask(key, run):
        return driver.ask(key, proposer, run, empty)

    def tell(run, proposal, evaluation):
        return driver.tell(proposer, run, proposal, evaluation)

    return (
        jax.jit(jax.vmap(jax.vmap(start, (0, None)))),
        jax.jit(jax.vmap(jax.vmap(ask))),
        jax.jit(jax.vmap(jax.vmap(tell))),
    )


def score_live(name: str, done: Trials, reference: Reference, meta_seconds: float = 0.0) -> MethodRun:
    """Live regret: against the best recorded validation loss, so a run may go below 0; losses above the cap count as the cap."""
    worst = reference.worst[:, None, None]
    told = np.where(np.isfinite(done.loss), np.minimum(done.loss, worst), np.nan)
    best_so_far = incumbent(told)
    accuracy = np.take_along_axis(done.accuracy, incumbent_trial(told), -1)
    return MethodRun(
        name=name,
        regret=normalised_regret(best_so_far, reference.best[:, None, None], worst),
        loss=best_so_far,
        test_accuracy=np.where(np.isfinite(best_so_far), accuracy, np.nan),
        seconds=done.seconds,
        meta_seconds=meta_seconds,
    )
