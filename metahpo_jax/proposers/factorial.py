"""Grid search: the evenly spaced points of the smallest full factorial design that holds the budget."""

import jax.numpy as jnp

from metahpo_jax.base import Array, Candidates, Context, Key, Proposal, Proposer, SpaceArrays
from metahpo_jax.history import History
from metahpo_jax.proposers.pool import forget, propose
from metahpo_jax.spaces import Kind, Space

MAX_LEVELS = 1024


def grid(space: Space) -> Proposer:
    """A full factorial design with as many levels per numeric hyperparameter as the budget (of the context) needs.

    Choices have all their values and ints no more than they hold; every other gets L levels at (i + 0.5) / L, with L the smallest number
    whose design has at least `budget` points. Of those, the budget takes every (points / budget)-th in lexicographic order.
    """

    def init(key: Key, context: Context) -> Context:
        return context

    def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
        levels = design(state.space, state.budget)
        index = history.asked(state) % state.budget
        u = (_digits(levels, (index + 0.5) / state.budget) + 0.5) / levels
        return propose(state, history, candidates, u.astype(jnp.float32)), state

    return Proposer(init, ask, forget)


def design(space: SpaceArrays, budget: Array) -> Array:
    """Levels `[D]` of the smallest full factorial design of at least `budget` points (or of all there are)."""
    numeric = (space.kind == Kind.FLOAT) | (space.kind == Kind.INT)
    most = jnp.where(space.kind == Kind.FLOAT, MAX_LEVELS, space.n_choices)
    tries = jnp.arange(1, MAX_LEVELS + 1)
    # `[L, D]`: levels per hyperparameter for each L; products as logarithms, since they overflow.
    per_try = jnp.where(numeric[None, :], jnp.minimum(tries[:, None], most[None, :]), space.n_choices[None, :])
    per_try = jnp.where(space.mask[None, :], jnp.maximum(per_try, 1), 1)
    enough = jnp.sum(jnp.log(per_try.astype(jnp.float32)), axis=1) >= jnp.log(budget.astype(jnp.float32)) - 1e-5
    return per_try[jnp.where(jnp.any(enough), jnp.argmax(enough), MAX_LEVELS - 1)]


def _digits(levels: Array, position: Array) -> Array:
    """Mixed-radix digits `[D]` of the point at `position` in (0, 1) of the lexicographic order: the number written in these bases."""
    digits = []
    for d in range(levels.shape[0]):
        scaled = position * levels[d]
        digit = jnp.clip(jnp.floor(scaled), 0, levels[d] - 1)
        digits.append(digit)
        position = scaled - digit
    return jnp.stack(digits)
