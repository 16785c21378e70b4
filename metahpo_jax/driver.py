"""The loop that owns the history: ask, mark pending, evaluate, tell, record. Once under `scan`, once in Python; both give the same trials."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metahpo_jax import history as histories
from metahpo_jax.base import (
    Array,
    Candidates,
    Context,
    Evaluation,
    Key,
    Objective,
    Proposal,
    Proposer,
    Purpose,
    PyTree,
    proposer_key,
    trial_key,
)
from metahpo_jax.errors import ConfigError
from metahpo_jax.history import History


class Run(NamedTuple):
    """A search under way: the proposer's state and the history it has been told."""

    state: PyTree
    history: History


def start(run_key: Key, proposer: Proposer, context: Context, capacity: int) -> Run:
    """Before the first trial."""
    dimensions = context.space.kind.shape[0]
    return Run(proposer.init(proposer_key(run_key), context), histories.empty(capacity, dimensions))


def ask(run_key: Key, proposer: Proposer, run: Run, candidates: Candidates) -> tuple[Proposal, Run]:
    """Next proposal, already in the history as PENDING. Its key is that of the row it fills, so a replay asks the same."""
    key = trial_key(run_key, run.history.count, Purpose.ASK)
    proposal, state = proposer.ask(key, run.state, run.history, candidates)
    return proposal, Run(state, histories.record_pending(run.history, proposal))


def ask_batch(run_key: Key, proposer: Proposer, run: Run, candidates: Candidates, q: int) -> tuple[Proposal, Run]:
    """`q` proposals `[q]`, each seeing the earlier ones as pending."""

    def body(run: Run, _: None) -> tuple[Run, Proposal]:
        proposal, run = ask(run_key, proposer, run, candidates)
        return run, proposal

    run, proposals = jax.lax.scan(body, run, None, length=q)
    return proposals, run


def tell(proposer: Proposer, run: Run, proposal: Proposal, evaluation: Evaluation) -> Run:
    """Records a result, whenever and in whatever order it comes."""
    return Run(proposer.tell(run.state, proposal, evaluation), histories.record(run.history, proposal, evaluation))


def search(
    run_key: Key, proposer: Proposer, objective: Objective, context: Context, candidates: Candidates, *, steps: int,
    given: Array | None = None,
) -> History:  # fmt: skip
    """`steps` evaluations under `lax.scan`, for a traceable proposer and objective; the caller vmaps over tasks and seeds.

    Rows `given [K]` of the pool are evaluated first, and told, without being asked for; `context.given` must be `K`.

    Runs of an objective are kept by trial number, so that a trial proposed again at a higher fidelity resumes.

    Raises:
      ConfigError: when the proposer or the objective is not traceable.
    """
    for what, one in (("proposer", proposer), ("objective", objective)):
        if not one.traceable:
            raise ConfigError(f"search: the {what} cannot run under jit; use driver.search_on_host instead.")
    rows = [] if given is None else list(given)
    run = start(run_key, proposer, context, histories.capacity_for(steps + len(rows)))
    for trial, row in enumerate(rows):
        run = _give(run_key, proposer, objective, run, context, candidates, row, trial)
    first = jax.eval_shape(lambda r: ask(run_key, proposer, r, candidates)[0], run)
    blank = jax.eval_shape(objective.start, run_key, first)
    store = jax.tree.map(lambda x: _blank(x, steps + len(rows)), blank)

    def body(carry: tuple[Run, PyTree], _: None) -> tuple[tuple[Run, PyTree], None]:
        run, store = carry
        known = run.history.next_trial
        proposal, run = ask(run_key, proposer, run, candidates)
        fresh = objective.start(trial_key(run_key, proposal.trial, Purpose.EVAL), proposal)
        saved = jax.tree.map(lambda x: x[proposal.trial], store)
        job = jax.tree.map(lambda new, old: _select(proposal.trial >= known, new, old), fresh, saved)
        evaluation, job = objective.advance(job, proposal.fidelity)
        store = jax.tree.map(lambda all_, one: all_.at[proposal.trial].set(one), store, job)
        return (tell(proposer, run, proposal, evaluation), store), None

    (run, _), _ = jax.lax.scan(body, (run, store), None, length=steps)
    return run.history


def _give(
    run_key: Key, proposer: Proposer, objective: Objective, run: Run, context: Context, candidates: Candidates, row: Array, trial: int,
) -> Run:  # fmt: skip
    """The run after row `[]` of the pool was evaluated as trial number `trial`, at full fidelity."""
    proposal = Proposal(
        trial=jnp.asarray(trial, jnp.int32),
        row=row.astype(jnp.int32),
        u=candidates.u[row],
        active=candidates.active[row],
        fidelity=context.max_fidelity,
    )
    evaluation, _ = objective.advance(
        objective.start(trial_key(run_key, trial, Purpose.EVAL), proposal), proposal.fidelity
    )
    run = run._replace(history=histories.record_pending(run.history, proposal))
    return tell(proposer, run, proposal, evaluation)


def search_on_host(
    run_key: Key, proposer: Proposer, objective: Objective, context: Context, candidates: Candidates, *, steps: int,
    given: Array | None = None, on_trial: Callable[[Proposal, Evaluation, Any], None] | None = None,
) -> History:  # fmt: skip
    """The same loop in Python, for objectives or proposers that cannot be traced. The history grows by powers of two.

    Rows `given [K]` come first, as in `search`. `on_trial(proposal, evaluation, job)` is called after each trial.
    """
    known = [] if given is None else list(given)
    run = start(run_key, proposer, context, histories.capacity_for(1 + len(known)))
    for trial, row in enumerate(known):
        run = _give(run_key, proposer, objective, run, context, candidates, row, trial)
    asking, telling = compiled(proposer)
    jobs: dict[int, Any] = {}
    for count in range(len(known), len(known) + steps):
        if count >= run.history.capacity:
            run = run._replace(history=histories.grow(run.history, histories.capacity_for(count + 1)))
        proposal, run = asking(run_key, run, candidates)
        trial = int(proposal.trial)
        if trial not in jobs:
            jobs[trial] = objective.start(trial_key(run_key, trial, Purpose.EVAL), proposal)
        evaluation, jobs[trial] = objective.advance(jobs[trial], proposal.fidelity)
        run = telling(run, proposal, evaluation)
        if on_trial is not None:
            on_trial(proposal, evaluation, jobs[trial])
    return run.history


def compiled(proposer: Proposer) -> tuple[Callable[..., tuple[Proposal, Run]], Callable[..., Run]]:
    """`ask(run_key, run, candidates)` and `tell(run, proposal, evaluation)`, jitted where the proposer allows."""

    def asking(run_key: Key, run: Run, candidates: Candidates) -> tuple[Proposal, Run]:
        return ask(run_key, proposer, run, candidates)

    def telling(run: Run, proposal: Proposal, evaluation: Evaluation) -> Run:
        return tell(proposer, run, proposal, evaluation)

    return (jax.jit(asking), jax.jit(telling)) if proposer.traceable else (asking, telling)


def _blank(x: jax.ShapeDtypeStruct, rows: int) -> Any:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), (rows, *x.shape))
    return jnp.zeros((rows, *x.shape), x.dtype)


def _select(condition: Any, new: Any, old: Any) -> Any:
    return jax.lax.select(jnp.broadcast_to(condition, new.shape), new, old)
