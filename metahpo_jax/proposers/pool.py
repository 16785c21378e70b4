"""What proposers share: turning a wish in the unit cube into a proposal that exists, in the space or in a pool."""

import jax.numpy as jnp

from metahpo_jax.base import Array, Candidates, Context, Evaluation, Proposal, PyTree
from metahpo_jax.history import History, untried
from metahpo_jax.spaces import Kind, activity, snap


def propose(context: Context, history: History, candidates: Candidates, wish: Array) -> Proposal:
    """A new trial at full fidelity, as close to `wish [D]` as there is one: the point itself, or the nearest untried candidate.

    Distance is Euclidean in the unit cube over the hyperparameters that are active in the candidate. Choices count as 1 when they differ.
    """
    wish = snap(context.space, wish)
    if candidates.u.shape[0] == 0:
        return new_trial(context, history, -1, wish, activity(context.space, wish))
    gap = jnp.abs(candidates.u - wish[None, :])
    nominal = (context.space.kind == Kind.CHOICE)[None, :]
    gap = jnp.where(nominal, (gap > 1e-6).astype(gap.dtype), gap)
    distance = jnp.sum(jnp.where(candidates.active, gap, 0.0) ** 2, axis=1)
    row = jnp.argmin(jnp.where(untried(history, candidates), distance, jnp.inf))
    return of_row(context, history, candidates, row)


def of_row(context: Context, history: History, candidates: Candidates, row: Array) -> Proposal:
    """A new trial at full fidelity of one row of the pool."""
    return new_trial(context, history, row, candidates.u[row], candidates.active[row])


def new_trial(context: Context, history: History, row: Array | int, u: Array, active: Array) -> Proposal:
    """A new trial at full fidelity."""
    return Proposal(
        trial=history.next_trial,
        row=jnp.asarray(row, jnp.int32),
        u=u.astype(jnp.float32),
        active=active,
        fidelity=jnp.asarray(context.max_fidelity, jnp.float32),
    )


def forget(state: PyTree, proposal: Proposal, evaluation: Evaluation) -> PyTree:
    """`tell` of a proposer that reads everything from the history."""
    return state
