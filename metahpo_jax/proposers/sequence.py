"""One proposer after another: `then(portfolio, 10, gp)` opens with ten picks of a portfolio."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Candidates, Context, Evaluation, Key, Proposal, Proposer, PyTree
from metahpo_jax.history import History


def then(first: Proposer, trials: int, second: Proposer) -> Proposer:
    """The first `trials` proposals are those of `first`, later ones those of `second`, which reads all of the history.

    Both are computed and one is selected: under `vmap` a branch would cost the same.
    """

    def init(key: Key, context: Context) -> tuple[Context, PyTree, PyTree]:
        first_key, second_key = jax.random.split(key)
        return context, first.init(first_key, context), second.init(second_key, context)

    def ask(
        key: Key, state: tuple[Context, PyTree, PyTree], history: History, candidates: Candidates
    ) -> tuple[Proposal, tuple[Context, PyTree, PyTree]]:
        context, one, two = state
        first_key, second_key = jax.random.split(key)
        opened, one = first.ask(first_key, one, history, candidates)
        proposal, two = second.ask(second_key, two, history, candidates)
        is_first = history.asked(context) < trials
        chosen = jax.tree.map(
            lambda a, b: jnp.where(is_first, a, b), opened.replace(extras=()), proposal.replace(extras=())
        )
        return chosen, (context, one, two)

    def tell(
        state: tuple[Context, PyTree, PyTree], proposal: Proposal, evaluation: Evaluation
    ) -> tuple[Context, PyTree, PyTree]:
        context, one, two = state
        return context, first.tell(one, proposal, evaluation), second.tell(two, proposal, evaluation)

    return Proposer(init, ask, tell, first.traceable and second.traceable)
