"""Real tables as one batch of tasks, for experiments in which small networks are really trained on them. Needs `make datasets`."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array
from metahpo_jax.spaces import Space
from metahpo_jax.spaces.unconstrained import EDGE
from metahpo_jax.tasks import Task, stacked, tabular


def data_sets(features: int, classes: int, most: int | None = None) -> tuple[list[str], Task]:
    """Names and tasks of the tables with at most so many features and classes, padded to one shape."""
    family = tabular()
    sizes = {name: family.shape(name) for name in family.names}
    names = [name for name, size in sizes.items() if size.features <= features and size.classes <= classes][:most]
    return names, stacked(family, names)


def free_numbers(space: Space, u: Array) -> dict[str, Array]:
    """Of coordinates `u [..., D]` in the unit cube, those of `Free(space)`: each hyperparameter `[...]`, traced."""
    z = jax.scipy.special.logit(jnp.clip(u, EDGE, 1.0 - EDGE))
    return {name: z[..., d] for d, name in enumerate(space.names)}
