"""Real tables as one batch of tasks, and the small networks that experiments really train on them. Needs `make datasets`."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array
from metahpo_jax.hypergrad import SPACE, classifier, gradient_descent, relative
from metahpo_jax.spaces import Free, Space
from metahpo_jax.spaces.unconstrained import EDGE
from metahpo_jax.tasks import Task, stacked, tabular

DEPTH, WIDTH, BATCH, STEPS = 2, 32, 32, 300  # of the networks and their training
FEATURES, CLASSES = 32, 4  # of the widest table
SEARCHED = Space.of({name: SPACE[name] for name in ("learning_rate", "weight_decay", "momentum", "label_smoothing")})
FREE = Free(SEARCHED)
INNER = gradient_descent(relative(classifier(DEPTH, WIDTH, batch=BATCH)), FREE, steps=STEPS)


def data_sets(most: int | None = None) -> tuple[list[str], Task]:
    """Names and tasks of the tables with at most `FEATURES` and `CLASSES`, padded to one shape."""
    family = tabular()
    sizes = {name: family.shape(name) for name in family.names}
    names = [name for name, size in sizes.items() if size.features <= FEATURES and size.classes <= CLASSES][:most]
    return names, stacked(family, names)


def usable(loss: Array) -> Array:
    """The relative loss, at most 1, also where the network diverged: the frequencies of the classes would take its place."""
    return jnp.where(loss < 1.0, loss, 1.0)


def free_numbers(u: Array) -> dict[str, Array]:
    """Of coordinates `u [..., D]` in `SEARCHED`, those of `FREE`: each hyperparameter `[...]`, traced."""
    z = jax.scipy.special.logit(jnp.clip(u, EDGE, 1.0 - EDGE))
    return {name: z[..., d] for d, name in enumerate(SEARCHED.names)}
