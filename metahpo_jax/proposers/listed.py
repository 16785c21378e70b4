"""A fixed list of configurations, tried in order: the proposer of a portfolio."""

from typing import NamedTuple

import jax.numpy as jnp

from metahpo_jax.base import Array, Candidates, Context, Key, Proposal, Proposer
from metahpo_jax.history import History
from metahpo_jax.proposers.pool import forget, propose
from metahpo_jax.spaces import Space


class PortfolioTheta(NamedTuple):
    """What greedy selection learned: `K` configurations, best first, in the unit cube."""

    u: Array  # `[K, D]` float32


def portfolio(theta: PortfolioTheta, space: Space) -> Proposer:
    """Proposes the list in order; it starts over when it is exhausted, which on a pool means the nearest untried neighbours."""

    def init(key: Key, context: Context) -> Context:
        return context

    def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
        picks = jnp.asarray(theta.u, jnp.float32)
        return propose(state, history, candidates, picks[history.asked(state) % picks.shape[0]]), state

    return Proposer(init, ask, forget)
