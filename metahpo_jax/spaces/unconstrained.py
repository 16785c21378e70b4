"""Hyperparameters as free numbers, for gradient descent: any real number stands for a value within the bounds."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array
from metahpo_jax.errors import ConfigError, SpaceError
from metahpo_jax.spaces.codec import values
from metahpo_jax.spaces.dimensions import Float
from metahpo_jax.spaces.space import Space

EDGE = 1e-3  # values closer to a bound than this share of the range start at this distance: the logit of a bound is infinite


class Free:
    """The codec between the hyperparameters of a space and unconstrained numbers: `u = sigmoid(z)`, and the space's own from `u` on.

    Numbers come as a dict from names to arrays of any shape, so that a hyperparameter may have a value per layer or step.

    Raises:
      ConfigError: for a space with hyperparameters that have no derivative.

    >>> free = Free(Space(rate=Float(1e-4, 1.0, log=True)))
    >>> z = free.encode({"rate": 0.01})
    >>> round(float(z["rate"]), 6), round(float(free.decode(z)["rate"]), 6)
    (0.0, 0.01)
    """

    def __init__(self, space: Space):
        for name in space:
            if not isinstance(space[name], Float):
                raise ConfigError(
                    f"{name!r} is {space[name]!r}, which has no derivative: fix it, search over it with a proposer, or round a Float "
                    "inside the training and take an evolution strategy (hypergrad.full_es) or a score function."
                )
            if space[name].when is not None:
                raise ConfigError(
                    f"{name!r} is conditional, which has no derivative: fix its parent, or search with a proposer."
                )
        self.space = space

    def encode(self, config: Mapping[str, Any], dtype: Any = np.float32) -> dict[str, Array]:
        """Free numbers `[]` of a configuration.

        Raises:
          SpaceError: for unknown, missing or impossible values.
        """
        u = np.clip(self.space.encode(config), EDGE, 1.0 - EDGE)
        return {name: jnp.asarray(math.log(x / (1.0 - x)), dtype) for name, x in zip(self.space.names, u, strict=True)}

    def decode(self, z: Mapping[str, Array]) -> dict[str, Array]:
        """Values, each of the shape of its number, with derivatives.

        Raises:
          SpaceError: when a name is missing or unknown.
        """
        if set(z) != set(self.space.names):
            raise SpaceError(f"free numbers: expected {', '.join(self.space.names)}, got {', '.join(z) or 'none'}.")
        found = {}
        for i, name in enumerate(self.space.names):
            own = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], self.space.arrays)
            found[name] = values(own, jax.nn.sigmoid(z[name])[..., None])[..., 0]
        return found

    def config(self, z: Mapping[str, Array]) -> dict[str, float]:
        """The configuration of numbers `[]`; where a hyperparameter has many, that of their mean."""
        u = [float(jax.nn.sigmoid(jnp.mean(z[name]))) for name in self.space.names]
        return self.space.decode(u)
