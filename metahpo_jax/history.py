"""The fixed-capacity masked record of a study: one row per (trial, fidelity)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metahpo_jax.base import Array, Candidates, Context, Evaluation, Proposal, Status
from metahpo_jax.errors import BudgetError


class History(struct.PyTreeNode):
    """What has been asked and told, padded to `N` rows. Rows are filled in the order of asking."""

    trial: Array  # `[N]` int32, -1 where empty
    row: Array  # `[N]` int32 pool index, -1 without a pool
    u: Array  # `[N, D]` float32
    active: Array  # `[N, D]` bool
    fidelity: Array  # `[N]` float32: planned while pending, then reached
    loss: Array  # `[N]` float32, NaN until told
    cost: Array  # `[N]` float32
    status: Array  # `[N]` int32

    @property
    def capacity(self) -> int:
        """Number of rows `N`, padding included."""
        return self.trial.shape[0]

    @property
    def ok(self) -> Array:
        """`[N]` bool: rows with a loss that a model may learn from. Early-stopped ones hold the loss they reached."""
        told = (self.status == Status.OK) | (self.status == Status.STOPPED)
        return told & jnp.isfinite(self.loss)

    @property
    def failed(self) -> Array:
        """`[N]` bool: rows that diverged or failed."""
        return (self.status == Status.DIVERGED) | (self.status == Status.FAILED)

    @property
    def pending(self) -> Array:
        """`[N]` bool: rows asked for and not told yet."""
        return self.status == Status.PENDING

    @property
    def count(self) -> Array:
        """`[]` int32: number of rows that are not empty."""
        return jnp.sum(self.status != Status.EMPTY, dtype=jnp.int32)

    @property
    def next_trial(self) -> Array:
        """`[]` int32: the number that a new trial gets."""
        return jnp.max(self.trial, initial=-1).astype(jnp.int32) + 1

    def asked(self, context: Context) -> Array:
        """`[]` int32: trials that the proposer has asked for itself, without those it was given."""
        return self.next_trial - context.given

    @property
    def incumbent(self) -> Array:
        """`[]` int32: row of the lowest loss at the highest fidelity that any row reached; 0 while there is none."""
        top = jnp.max(jnp.where(self.ok, self.fidelity, -jnp.inf), initial=-jnp.inf)
        eligible = self.ok & (self.fidelity >= top)
        return jnp.argmin(jnp.where(eligible, self.loss, jnp.inf)).astype(jnp.int32)


def capacity_for(trials: int) -> int:
    """Smallest power of two that holds `trials` rows, at least 8: a study of N traces at most log2(N) + 1 times."""
    return max(8, 1 << max(trials - 1, 0).bit_length())


def empty(capacity: int, dimensions: int) -> History:
    """A history of `capacity` empty rows over `dimensions` hyperparameters."""
    return History(
        trial=jnp.full((capacity,), -1, jnp.int32),
        row=jnp.full((capacity,), -1, jnp.int32),
        u=jnp.zeros((capacity, dimensions), jnp.float32),
        active=jnp.zeros((capacity, dimensions), bool),
        fidelity=jnp.zeros((capacity,), jnp.float32),
        loss=jnp.full((capacity,), jnp.nan, jnp.float32),
        cost=jnp.zeros((capacity,), jnp.float32),
        status=jnp.full((capacity,), Status.EMPTY, jnp.int32),
    )


def grow(history: History, capacity: int) -> History:
    """The same rows in a history of `capacity` (host only: the shape changes).

    Raises:
      BudgetError: when `capacity` is smaller than the history's own.
    """
    n = history.capacity
    if capacity < n:
        raise BudgetError(
            f"grow: capacity must be at least the history's own {n}, got {capacity}; rows are never dropped."
        )
    return jax.tree.map(lambda new, old: new.at[:n].set(old), empty(capacity, history.u.shape[1]), history)


def record_pending(history: History, proposal: Proposal) -> History:
    """Adds the proposal as a PENDING row in the next empty slot; without one, the history stays as it is."""
    return _write(
        history,
        history.count,
        trial=proposal.trial,
        row=proposal.row,
        u=proposal.u,
        active=proposal.active,
        fidelity=proposal.fidelity,
        status=Status.PENDING.value,
    )


def record(history: History, proposal: Proposal, evaluation: Evaluation) -> History:
    """Fills the proposal's PENDING row; a loss that is not finite turns OK and STOPPED into DIVERGED.

    A proposal without such a row changes nothing.
    """
    planned = jnp.asarray(proposal.fidelity, history.fidelity.dtype)
    mine = (history.trial == proposal.trial) & history.pending & (history.fidelity == planned)
    told = (evaluation.status == Status.OK) | (evaluation.status == Status.STOPPED)
    return _write(
        history,
        jnp.where(jnp.any(mine), jnp.argmax(mine), history.capacity),
        fidelity=evaluation.fidelity,
        loss=evaluation.loss,
        cost=evaluation.cost,
        status=jnp.where(told & ~jnp.isfinite(evaluation.loss), Status.DIVERGED.value, evaluation.status),
    )


def _write(history: History, slot: Array, **fields: Any) -> History:
    """Sets the named columns of one row, in their own types; a slot beyond the last row drops them."""
    columns = {name: getattr(history, name) for name in fields}
    return history.replace(
        **{n: c.at[slot].set(jnp.asarray(fields[n], c.dtype), mode="drop") for n, c in columns.items()}
    )


def untried(history: History, candidates: Candidates) -> Array:
    """`[n]` bool: candidates of the pool that no row of the history holds."""
    n = candidates.mask.shape[0]
    used = jnp.zeros((n,), bool).at[jnp.where(history.row >= 0, history.row, n)].set(True, mode="drop")
    return candidates.mask & ~used
