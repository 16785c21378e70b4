"""Networks under gradient descent as an `Inner`: every continuous hyperparameter of the training has a derivative."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.flatten_util import ravel_pytree

from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import Inner
from metahpo_jax.spaces import Float, Free, Space

B1, B2, EPS = 0.9, 0.999, 1e-8
Per = Literal["all", "layer", "step", "layer and step", "parameter"]

# Noise is reparameterised, a traced scale times a standard normal, so that its derivative is one. Bernoulli dropout has none.
SPACE = Space(
    learning_rate=Float(1e-4, 1.0, log=True),
    weight_decay=Float(1e-6, 1e-1, log=True),
    momentum=Float(0.0, 0.99),
    label_smoothing=Float(0.0, 0.2),
    gaussian_dropout=Float(0.0, 1.0),
    data_noise=Float(0.0, 1.0),
)


class Problem(NamedTuple):
    """A model on the data of a task. `train_loss` is told the values of the hyperparameters by name."""

    init: Callable[[Key, PyTree], PyTree]  # key, task -> weights, a list of layers
    train_loss: Callable[[Key, PyTree, PyTree, Mapping[str, Array]], Array]  # key, weights, task, values
    valid_loss: Callable[[PyTree, PyTree], Any]  # weights, task -> `[]`, or (`[]`, info)
    full_loss: Callable[
        [PyTree, PyTree, Mapping[str, Array]], Array
    ]  # weights, task, values: on all data, without noise
    uses: tuple[str, ...] = ()  # hyperparameters, besides those of the optimiser, that change the training loss


class Descending(struct.PyTreeNode):
    """Weights in training, and the moments of the optimiser."""

    weights: PyTree
    first: PyTree
    second: PyTree  # `()` but for Adam


class Theta(struct.PyTreeNode):
    """What is learned: free numbers of hyperparameters, and the initial weights where those are learned as well."""

    z: dict[str, Array]
    weights: PyTree = ()


def gradient_descent(
    problem: Problem, free: Free | None, *, steps: int, fixed: Mapping[str, float] | None = None, optimiser: Literal["sgd", "adam"] = "sgd",
    per: Per = "all", first_order: bool = False,
) -> Inner:  # fmt: skip
    """`steps` updates of the weights under the hyperparameters that a `Theta` holds.

    Args:
      problem: the model and its losses.
      free: the hyperparameters that are learned: some of `SPACE`'s, with bounds of one's own if wanted; None where only weights are.
      fixed: values of the others; absent ones are 0, the learning rate must be somewhere.
      optimiser: `sgd`, with momentum where that is learned or fixed, or `adam`. Adam's epsilon is inside the root, where it keeps the
        derivative finite at gradients of zero.
      per: whether there is one learning rate, or one per layer, per step (as MAML++, Antoniou et al. 2019), both, or one per parameter
        (Meta-SGD, Li et al. 2017, whose rates may be negative as well: these stay within their bounds): the shape of `z["learning_rate"]` is
        `[]`, `[layers]`, `[steps]`, `[steps, layers]` or `[parameters]`.
      first_order: the gradients of the inner loss count as constants (first-order MAML, Finn et al. 2017, section 5.2): initial weights
        and the optimiser's hyperparameters are learned from products of first derivatives alone.

    Weight decay is added to the gradient.

    Raises:
      ConfigError: for hyperparameters without a name here, or without a learning rate.
    """
    fixed = dict(fixed or {})
    known, given = SPACE.names, [*(free.space.names if free else ()), *fixed]
    if "dropout" in given:
        raise ConfigError(
            "gradient_descent: the rate of Bernoulli dropout has no pathwise derivative; learn it by an evolution strategy "
            "(hypergrad.full_es) or a score function, or take gaussian_dropout."
        )
    unknown = [name for name in given if name not in known]
    if unknown or len(set(given)) < len(given) or "learning_rate" not in given:
        raise ConfigError(
            f"gradient_descent: expected a learning_rate and any others of {', '.join(SPACE.names)}, each once, got {', '.join(given)}."
        )
    in_the_loss = {"weight_decay", *problem.uses}
    works = (
        {"learning_rate"} | ({"momentum"} if optimiser == "sgd" else set()) | (set() if first_order else in_the_loss)
    )
    idle = [name for name in (free.space.names if free else ()) if name not in works]
    if idle:
        raise ConfigError(
            f"gradient_descent: {idle[0]} changes nothing here, so it cannot be learned: momentum needs sgd, noise a problem that is noisy, "
            "and what is part of the inner loss more than first-order gradients; leave it out, or fix it."
        )
    vain = [name for name, value in fixed.items() if value and name not in works | in_the_loss]
    if vain:
        raise ConfigError(
            f"gradient_descent: a fixed {vain[0]} changes nothing here: momentum needs sgd, noise a problem that is noisy; leave it out."
        )
    if per not in get_args(Per):
        raise ConfigError(f"gradient_descent: per must be one of {', '.join(get_args(Per))}, got {per!r}.")
    if per != "all" and "learning_rate" in fixed:
        raise ConfigError(
            f"gradient_descent: one learning rate is fixed, so there are none per {per}; learn them, or take per='all'."
        )
    if steps < 1:
        raise ConfigError(f"gradient_descent: steps must be at least 1, got {steps}.")

    def values_of(theta: Theta, weights: PyTree) -> dict[str, Array]:
        found = free.decode(theta.z) if free else {}
        dtype = jax.tree.leaves(weights)[0].dtype
        return (
            {name: jnp.zeros((), dtype) for name in known}
            | {n: jnp.asarray(v, dtype) for n, v in fixed.items()}
            | found
        )

    def init(key: Key, theta: Theta, task: PyTree) -> Descending:
        weights = theta.weights if jax.tree.leaves(theta.weights) else problem.init(key, task)
        _check_rate(theta, weights)
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return Descending(weights, zeros, zeros if optimiser == "adam" else ())

    def _check_rate(theta: Theta, weights: PyTree) -> None:
        if "learning_rate" not in theta.z:
            return
        layers, size = len(weights), sum(leaf.size for leaf in jax.tree.leaves(weights))
        shapes = {
            "all": (),
            "layer": (layers,),
            "step": (steps,),
            "layer and step": (steps, layers),
            "parameter": (size,),
        }
        found = jnp.shape(theta.z["learning_rate"])
        if found != shapes[per]:
            raise ConfigError(
                f"gradient_descent: z['learning_rate'] per {per} must have shape {shapes[per]}, got {found}."
            )

    def penalty(values: Mapping[str, Array], weights: PyTree) -> Array:
        return 0.5 * values["weight_decay"] * jnp.asarray(sum(jnp.vdot(w, w) for w in jax.tree.leaves(weights)))

    def penalised(key: Key, values: Mapping[str, Array], weights: PyTree, task: PyTree) -> Array:
        return problem.train_loss(key, weights, task, values) + penalty(values, weights)

    def inner_loss(key: Key, theta: Theta, weights: PyTree, task: PyTree) -> Array:
        """What minibatches and noise are drawn around: the loss that the training approaches the minimum of."""
        values = values_of(theta, weights)
        return problem.full_loss(weights, task, values) + penalty(values, weights)

    def rates(rate: Array, weights: PyTree, index: Array) -> PyTree:
        """The learning rate of every array of weights."""
        if "step" in per:
            rate = rate[index]
        if per == "parameter":
            return ravel_pytree(weights)[1](rate)
        if "layer" in per:
            return [jax.tree.map(lambda w, i=i: rate[i], layer) for i, layer in enumerate(weights)]
        return jax.tree.map(lambda w: rate, weights)

    def step(key: Key, theta: Theta, state: Descending, task: PyTree, index: Array) -> Descending:
        weights = state.weights
        values = values_of(theta, weights)
        slope = jax.grad(penalised, argnums=2)(key, values, weights, task)
        if first_order:
            slope = lax.stop_gradient(slope)
        rate = rates(values["learning_rate"], weights, index)
        if optimiser == "sgd":
            first = jax.tree.map(lambda m, g: values["momentum"] * m + g, state.first, slope)
            return Descending(jax.tree.map(lambda w, r, m: w - r * m, weights, rate, first), first, ())
        first = jax.tree.map(lambda m, g: B1 * m + (1.0 - B1) * g, state.first, slope)
        second = jax.tree.map(lambda v, g: B2 * v + (1.0 - B2) * g * g, state.second, slope)
        count = (index + 1).astype(values["learning_rate"].dtype)

        def moved(w: Array, r: Array, m: Array, v: Array) -> Array:
            return w - r * (m / (1.0 - B1**count)) / jnp.sqrt(v / (1.0 - B2**count) + EPS)

        return Descending(jax.tree.map(moved, weights, rate, first, second), first, second)

    return Inner(
        init=init,
        step=step,
        loss=lambda key, theta, state, task: problem.valid_loss(state.weights, task),
        horizon=steps,
        weights=lambda state: state.weights,
        inner_loss=inner_loss,
    )
