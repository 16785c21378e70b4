"""The methods that a benchmark compares: how each learns from the training tasks of a fold, and the proposer that comes of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from metahpo_jax.base import Key, Proposer, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.metalearners.portfolio import learn_portfolio
from metahpo_jax.metalearners.pretrained_gp import pretrain_gp, pretrained_gp
from metahpo_jax.proposers import gp_bo, grid, portfolio, random, sobol
from metahpo_jax.spaces import Space


class Training(NamedTuple):
    """What learning may see: all tasks' losses, and per fold which of them are training tasks."""

    space: Space
    u: np.ndarray  # `[N, D]`
    loss: np.ndarray  # `[T, N]`
    folds: np.ndarray  # `[S, T]` bool
    trials: int


class Method(NamedTuple):
    """`learn` gives one theta per fold (a list of `S`), None for a method that learns nothing; `propose` turns one into a proposer."""

    propose: Callable[[Space, PyTree], Proposer]
    learn: Callable[[Training, Key], list[Any]] | None = None


def _learn_portfolio(training: Training, key: Key) -> list[Any]:
    size = min(max(training.trials, 16), len(training.u))
    return [learn_portfolio(training.u, training.loss[fold], size) for fold in training.folds]


def _pretrain(training: Training, key: Key) -> list[Any]:
    return pretrain_gp(training.space, training.u, training.loss, training.folds, key)


METHODS: dict[str, Method] = {
    "random": Method(lambda space, theta: random(space)),
    "sobol": Method(lambda space, theta: sobol(space)),
    "grid": Method(lambda space, theta: grid(space)),
    "portfolio": Method(lambda space, theta: portfolio(theta, space), _learn_portfolio),
    "gp": Method(lambda space, theta: gp_bo(space, opening=sobol(space))),
    "pretrained_gp": Method(lambda space, theta: pretrained_gp(theta, space), _pretrain),
}


def methods_named(names: list[str]) -> dict[str, Method]:
    """The methods of these names, in their order.

    Raises:
      ConfigError: for an unknown or repeated name, with the nearest known one, or for none at all.
    """
    from difflib import get_close_matches

    if not names:
        raise ConfigError(f"name at least one method of {', '.join(METHODS)}.")
    for i, name in enumerate(names):
        if name not in METHODS:
            near = get_close_matches(name, METHODS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown method {name!r}; {hint}known are {', '.join(METHODS)}.")
        if name in names[:i]:
            raise ConfigError(f"method {name!r} is named twice; name it once.")
    return {name: METHODS[name] for name in names}


def stack(thetas: list[Any]) -> Any:
    """One pytree with a leading axis over folds."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *thetas)
