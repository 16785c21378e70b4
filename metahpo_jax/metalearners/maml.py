"""MAML for hyperparameters: an initial configuration that a few hypergradient steps, or a few trials, make good on a new task.

The training of one task is an `Inner`, most often `hypergrad.gradient_descent`; what is learned is a `Theta`, free numbers of
hyperparameters and, if wanted, the network's own initial weights (Finn, Abbeel and Levine 2017, algorithm 1). First-order MAML is
`gradient_descent(first_order=True)`, learned rates per layer, step or parameter are its `per`; Reptile (Nichol, Achiam and Schulman 2018)
is the estimator `reptile`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metahpo_jax.base import Array, HyperGrad, Key, MetaLearner, Proposer, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import Inner, Theta, estimator_of
from metahpo_jax.hypergrad.auto import Estimator
from metahpo_jax.hypergrad.inner import advance, full_horizon, measured
from metahpo_jax.metalearners.descent import at_once, descent
from metahpo_jax.proposers import PortfolioTheta, portfolio, then
from metahpo_jax.spaces import Free, Space


def maml(
    inner: Inner, theta: Theta, tasks: PyTree, *, estimator: Estimator = "auto", rate: float = 0.05, max_norm: float | None = 1.0,
    optimiser: optax.GradientTransformation | None = None, theta_init: Callable[[Key], Theta] | None = None,
    devices: Sequence[Any] | None = None,
) -> MetaLearner:  # fmt: skip
    """Descends the mean over tasks of the loss after training, from `theta` on; train it with `fit`.

    Args:
      inner: the training of one task.
      theta: where the search starts.
      tasks: a batch of tasks, of which only shapes and types count.
      estimator: of the hypergradient: `"auto"`, a name, or a function of `inner`.
      rate: of Adam, in units of the free numbers (one unit around the middle of a range is a quarter of it).
      optimiser: another one of optax.
      theta_init: draws the start of each lane instead, of the structure of `theta`.
      devices: share the tasks of a batch evenly; on a CPU those that `metahpo_jax.configure` made of its cores.

    Raises:
      ConfigError: for an estimator that is unknown or cannot differentiate `theta`.
    """
    task, number = jax.tree.map(lambda x: x[0], tasks), jax.tree.leaves(tasks)[0].shape[0]
    chosen = estimator_of(estimator, inner, theta, task, tasks=at_once(number))
    logging.getLogger(__name__).info("maml: hypergradients by %s: %s", chosen.name, chosen.reason)
    optimiser = optax.adam(rate) if optimiser is None else optimiser
    start = theta_init or (lambda key: theta)
    return descent(chosen.hypergrad, start, optimiser, max_norm=max_norm, tasks=tasks, devices=devices)


def reptile(inner: Inner) -> HyperGrad:
    """Initial weights minus trained ones, in place of a gradient (Nichol, Achiam and Schulman 2018, algorithm 1); hyperparameters stay.

    The loss of the estimate is that after training. `theta.weights` must hold the initial weights.
    """

    def estimate(key: Key, theta: Theta, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        if not jax.tree.leaves(theta.weights):
            raise ConfigError(
                "reptile: theta holds no weights, and there is nothing else that it learns; start from some, or use maml."
            )
        init_key, step_key, loss_key = jax.random.split(key, 3)
        state = advance(inner, step_key, theta, inner.init(init_key, theta, task), task, 0, inner.horizon)
        value, info = measured(inner, loss_key, theta, state, task)
        change = jax.tree.map(jnp.subtract, theta.weights, inner.weights(state))
        return value, Theta(jax.tree.map(jnp.zeros_like, theta.z), change), info

    return full_horizon(estimate)


class Adapted(NamedTuple):
    """What adaptation went through: `theta` before each evaluation, and its losses."""

    z: dict[str, Array]  # `[evaluations, ...]`
    loss: Array  # `[evaluations]`


def adapt(
    hypergrad: HyperGrad, theta: Theta, task: PyTree, key: Key, *, evaluations: int, rate: float | Array = 0.3
) -> Adapted:  # fmt: skip
    """Hypergradient steps on one task from `theta` on: each evaluation trains with the present hyperparameters and moves them.

    The step has the length `rate` in free numbers whatever the size of the gradient (the scale of losses differs from task to task), and
    halves with every evaluation; the initial weights stay. All evaluations share their random numbers.

    Args:
      hypergrad: a full-horizon estimator.

    Raises:
      ConfigError: when there are no hyperparameters to move.
    """

    if not theta.z:
        raise ConfigError(
            "adapt: theta holds no hyperparameters, so there is nothing to move; train with its weights instead."
        )

    def one(
        carry: tuple[dict[str, Array], Array], _: None
    ) -> tuple[tuple[dict[str, Array], Array], tuple[dict[str, Array], Array]]:
        z, length = carry
        estimate, _ = hypergrad.step(key, theta.replace(z=z), (), task)
        norm = optax.tree.norm(estimate.gradient.z)
        usable = jnp.isfinite(norm) & (norm > 0)
        moved = jax.tree.map(
            lambda x, g: jnp.where(usable, x - length * g / norm, x).astype(x.dtype), z, estimate.gradient.z
        )
        return (moved, 0.5 * length), (z, estimate.loss)

    start = (theta.z, jnp.asarray(rate, next(iter(theta.z.values())).dtype))
    _, (z, loss) = jax.lax.scan(one, start, length=evaluations)
    return Adapted(z, loss)


def configuration(theta: Theta, free: Free, fixed: Mapping[str, Any], space: Space) -> np.ndarray:
    """Coordinates `[D]` in `space` of what was learned; `fixed` are the values of the hyperparameters that were not.

    Raises:
      SpaceError: when a learned value is beyond the bounds of `space`, or a hyperparameter of it is missing.
    """
    learned = {name: value for name, value in free.config(theta.z).items() if name in space}
    return space.encode({**fixed, **learned})


def started_at(u: np.ndarray, space: Space, proposer: Proposer) -> Proposer:
    """A proposer that first tries the configuration `u [D]`, and then goes on by itself with what that gave."""
    return then(portfolio(PortfolioTheta(jnp.asarray(u, jnp.float32)[None]), space), 1, proposer)
