"""Warm starts: a new task begins with what a source task ended with, and goes back to a cold start where the source misleads.

Both a tuned configuration (Feurer, Springenberg and Hutter 2015, section 3) and trained weights can be handed on. What guards against negative
transfer is the target's own loss: nothing is assumed of how alike the tasks are.
"""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array, Candidates, Context, Evaluation, Key, Proposal, Proposer, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.history import History
from metahpo_jax.hypergrad import Inner
from metahpo_jax.hypergrad.inner import advance
from metahpo_jax.proposers import PortfolioTheta
from metahpo_jax.proposers.pool import propose
from metahpo_jax.spaces import Space


def warm_start(tuned: PortfolioTheta, space: Space, proposer: Proposer, *, guard: bool = True) -> Proposer:
    """Tries the configurations `tuned.u [K, D]` of sources first, and then goes on with `proposer`, which knows of those trials.

    With `guard`, the second trial is the proposer's own. The remaining configurations are tried only where the first was better; where it was
    not, or diverged, the sources are dropped, and what they cost is one trial. While either has no result yet, trials are the proposer's own.

    Raises:
      ConfigError: when there is no configuration to start from, or one of another space.
    """
    if tuned.u.ndim != 2 or not tuned.u.shape[0] or tuned.u.shape[1] != space.size:
        raise ConfigError(
            f"warm_start: expected configurations of shape [K >= 1, {space.size}], got {tuple(tuned.u.shape)}; encode them with the space."
        )
    number = tuned.u.shape[0]

    def init(key: Key, context: Context) -> tuple[Context, PyTree]:
        return context, proposer.init(key, context)

    def trusted(history: History, context: Context, asked: Array) -> tuple[Array, Array]:
        """Which of the sources' configurations is next, and whether it is tried."""
        if not guard:
            return asked, asked < number

        def result_of(trial: int) -> tuple[Array, Array]:
            mine = history.trial == context.given + trial
            loss = jnp.min(jnp.where(mine & history.ok, history.loss, jnp.inf), initial=jnp.inf)
            return loss, jnp.any(mine & (history.ok | history.failed))

        (source, source_told), (own, own_told) = result_of(0), result_of(1)
        better = source_told & own_told & (source < own)
        return jnp.maximum(asked - 1, 0), (asked == 0) | ((asked > 1) & (asked <= number) & better)

    def ask(
        key: Key, state: tuple[Context, PyTree], history: History, candidates: Candidates
    ) -> tuple[Proposal, tuple[Context, PyTree]]:
        context, inside = state
        index, is_warm = trusted(history, context, history.asked(context))
        warm = propose(context, history, candidates, jnp.asarray(tuned.u, jnp.float32)[index % number])
        cold, inside = proposer.ask(key, inside, history, candidates)
        chosen = jax.tree.map(lambda a, b: jnp.where(is_warm, a, b), warm, cold.replace(extras=()))
        return chosen, (context, inside)

    def tell(state: tuple[Context, PyTree], proposal: Proposal, evaluation: Evaluation) -> tuple[Context, PyTree]:
        context, inside = state
        return context, proposer.tell(inside, proposal, evaluation)

    return Proposer(init, ask, tell, proposer.traceable)


def warm_weights(inner: Inner, *, guard: bool = True, probe: int = 0) -> Inner:
    """The training from `theta.weights`, those that a source ended with; with `guard`, from fresh ones where those do better.

    The guard compares the loss, most often that on validation rows, after `probe` updates from either start, both with the same minibatches
    (others than the run's). Training then begins anew from the better one. Without updates it costs two evaluations, and sees weights whose
    outputs mislead; weights whose features help although their outputs do not yet need a `probe`, which costs twice as many updates.

    Args:
      inner: one that takes its initial weights from `theta.weights` where there are any, such as `gradient_descent`.

    Raises:
      ConfigError: for a probe longer than the training, or (where `init` is traced) a `theta` without weights.
    """
    if not 0 <= probe <= inner.horizon:
        raise ConfigError(
            f"warm_weights: probe must be from 0 to the {inner.horizon} updates of training, got {probe}."
        )

    def init(key: Key, theta: PyTree, task: PyTree) -> PyTree:
        if not jax.tree.leaves(theta.weights):
            raise ConfigError(
                "warm_weights: theta holds no weights to start from; put the source's there, or train without this."
            )
        warm = inner.init(key, theta, task)
        if not guard:
            return warm
        cold = inner.init(key, theta.replace(weights=()), task)
        step_key, loss_key = jax.random.split(jax.random.fold_in(key, 1))

        def loss_from(state: PyTree) -> Array:
            out = inner.loss(loss_key, theta, advance(inner, step_key, theta, state, task, 0, probe), task)
            loss = jax.lax.stop_gradient(out[0] if isinstance(out, tuple) else out)
            return jnp.where(jnp.isfinite(loss), loss, jnp.inf)

        is_warm = loss_from(warm) < loss_from(cold)
        return jax.tree.map(lambda a, b: jnp.where(is_warm, a, b), warm, cold)

    return inner._replace(init=init)
