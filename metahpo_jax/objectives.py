"""Three objectives behind one signature: a recorded table, a live learner, a user's own function."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metahpo_jax.base import Array, Evaluation, Key, Learner, Objective, Proposal, PyTree, Status, training_keys
from metahpo_jax.errors import ObjectiveError
from metahpo_jax.spaces import Space
from metahpo_jax.tasks.base import Task


class Table(struct.PyTreeNode):
    """What `n` configurations did at `P` fidelities of one task."""

    loss: Array  # `[n, P]`
    cost: Array  # `[n, P]`, up to the fidelity
    status: Array  # `[n, P]` int32
    fidelity: Array  # `[P]`, increasing


def table(recorded: Table) -> Objective:
    """Looks trials up: row `proposal.row`, at the highest recorded fidelity that does not exceed the one asked for."""

    def start(key: Key, proposal: Proposal) -> Array:
        return proposal.row

    def advance(row: Array, fidelity: Array) -> tuple[Evaluation, Array]:
        reached = jnp.searchsorted(recorded.fidelity, fidelity * (1 + 1e-6), side="right") - 1
        point = jnp.clip(reached, 0, recorded.fidelity.shape[0] - 1)
        known = (row >= 0) & (reached >= 0)
        evaluation = Evaluation(
            loss=jnp.where(known, recorded.loss[row, point], jnp.nan).astype(jnp.float32),
            cost=jnp.where(known, recorded.cost[row, point], 0.0).astype(jnp.float32),
            fidelity=jnp.where(known, recorded.fidelity[point], fidelity).astype(jnp.float32),
            status=jnp.where(known, recorded.status[row, point], int(Status.FAILED)).astype(jnp.int32),
        )
        return evaluation, row

    return Objective(start, advance, traceable=True)


class LiveRun(struct.PyTreeNode):
    """A training under way: its hyperparameters, its state, and the samples it has seen."""

    h: PyTree
    state: PyTree
    samples: Array


def live(
    run_key: Key,
    learner: Learner,
    task: Task,
    hyperparameters: Callable[[Array], PyTree],
    cost_per_sample: float = 1.0,
) -> Objective:
    """Really trains. All proposals must fit the learner's capacity; fidelity is counted in samples.

    Args:
      run_key: of the training, by task and seed alone: all trials share initial weights, minibatches and dropout noise.
      learner: of one capacity.
      task: what to learn.
      hyperparameters: from coordinates `u [D]` to the learner's `h`, traced.
      cost_per_sample: what a sample of training costs, in the unit of `Evaluation.cost`.

    The run is the learner's state, so a trial that is proposed again at a higher fidelity goes on where it stopped, and the result
    equals that of a run which never stopped, bit by bit.
    """

    init_key, train_key = training_keys(run_key)

    def start(key: Key, proposal: Proposal) -> LiveRun:
        h = hyperparameters(proposal.u)
        return LiveRun(h, learner.init(init_key, h, task), jnp.zeros((), jnp.int32))

    def advance(run: LiveRun, fidelity: Array) -> tuple[Evaluation, LiveRun]:
        target = jnp.maximum(run.samples, jnp.round(fidelity).astype(jnp.int32))
        one = jax.tree.map(lambda x: x[None], (run.h, run.state))
        state, _ = learner.train(train_key, *one, task, run.samples, target)
        state = jax.tree.map(lambda x: x[0], state)
        loss = learner.evaluate(state, task, "valid").loss
        ok = state.alive & jnp.isfinite(loss)
        evaluation = Evaluation(
            loss=jnp.where(ok, loss, jnp.nan).astype(jnp.float32),
            cost=jnp.asarray(cost_per_sample * target, jnp.float32),
            fidelity=target.astype(jnp.float32),
            status=jnp.where(ok, int(Status.OK), int(Status.DIVERGED)).astype(jnp.int32),
        )
        return evaluation, run.replace(state=state, samples=target)

    return Objective(start, advance, traceable=True)


def user_function(fn: Callable[..., Any], space: Space, *, catch: bool = True) -> Objective:
    """A user's own Python function of a configuration, `fn(config) -> loss` or `fn(config, fidelity) -> loss`.

    The wrapper never lets a bad result in: NaN and infinity make the trial DIVERGED; an exception (with `catch`), or anything
    that is not one real number, makes it FAILED, with the reason in the run's `reason`.
    """
    both = takes_fidelity(fn)

    def start(key: Key, proposal: Proposal) -> dict[str, Any]:
        return {"config": space.decode(np.asarray(proposal.u)), "trial": int(proposal.trial)}

    def advance(run: dict[str, Any], fidelity: Array) -> tuple[Evaluation, dict[str, Any]]:
        arguments = (run["config"], float(fidelity)) if both else (run["config"],)
        loss, status, reason = call(fn, arguments, catch=catch)
        evaluation = Evaluation(
            loss=jnp.asarray(loss, jnp.float32),
            cost=jnp.zeros((), jnp.float32),
            fidelity=jnp.asarray(fidelity, jnp.float32),
            status=jnp.asarray(int(status), jnp.int32),
        )
        return evaluation, run | {"reason": reason}

    return Objective(start, advance, traceable=False)


def call(fn: Callable[..., Any], arguments: tuple[Any, ...], *, catch: bool = True) -> tuple[float, Status, str]:
    """(loss, status, reason) of one call of a user's function; never raises for a bad result."""
    try:
        raw = fn(*arguments)
    except Exception as error:
        if not catch:
            raise
        return math.nan, Status.FAILED, f"{type(error).__name__}: {text_of(error)}"
    try:
        loss = as_loss(raw)
    except ObjectiveError as error:
        return math.nan, Status.FAILED, str(error)
    if not math.isfinite(loss):
        return math.nan, Status.DIVERGED, f"the loss is {loss}"
    return loss, Status.OK, ""


def as_loss(raw: Any) -> float:
    """One real number (Python's, NumPy's or JAX's, zero-dimensional) as a float that fits float32; infinite where it does not.

    Raises:
      ObjectiveError: for None, text, bool, complex, arrays and mappings.
    """
    if isinstance(raw, (np.generic, np.ndarray, jax.Array)) and np.ndim(raw) == 0:
        raw = np.asarray(raw).item()
    if isinstance(raw, bool) or not isinstance(raw, numbers.Real):
        hint = "; return the loss itself" if isinstance(raw, (tuple, list, Mapping, np.ndarray, jax.Array)) else ""
        raise ObjectiveError(f"the objective must return one real number, got {type(raw).__name__}{hint}.")
    try:
        value = float(raw)
    except OverflowError:
        return math.inf
    return value if abs(value) <= 3.4e38 or math.isnan(value) else math.copysign(math.inf, value)


def text_of(error: BaseException) -> str:
    """The message of an exception, whatever its class does when printed."""
    try:
        return str(error)[:500]
    except Exception:
        return "its message cannot be printed"


def takes_fidelity(fn: Callable[..., Any]) -> bool:
    """Whether a user's function wants the fidelity as its second argument."""
    import inspect

    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(positional) >= 2
