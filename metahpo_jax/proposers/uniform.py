"""Random search (Bergstra and Bengio 2012): independent uniform points of the unit cube, or rows of the pool."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Candidates, Context, Key, Proposal, Proposer
from metahpo_jax.history import History, untried
from metahpo_jax.proposers.pool import forget, of_row, propose
from metahpo_jax.spaces import Space


def random(space: Space) -> Proposer:
    """Uniform on the unit cube of `space`; on a pool, uniform among the untried candidates."""
    dimensions = space.size

    def init(key: Key, context: Context) -> Context:
        return context

    def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
        if candidates.u.shape[0] == 0:
            return propose(state, history, candidates, jax.random.uniform(key, (dimensions,), jnp.float32)), state
        ticket = jax.random.uniform(key, candidates.mask.shape, jnp.float32)
        row = jnp.argmax(jnp.where(untried(history, candidates), ticket, -1.0))
        return of_row(state, history, candidates, row), state

    return Proposer(init, ask, forget)
