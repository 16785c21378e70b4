"""Real tables as one batch of tasks, for experiments in which small networks are really trained on them. Needs `make datasets`."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array
from metahpo_jax.hypergrad.gradient_descent import Problem
from metahpo_jax.spaces import Space
from metahpo_jax.spaces.unconstrained import EDGE
from metahpo_jax.tasks import tabular
from metahpo_jax.tasks.base import Task, TaskShape


def data_sets(features: int, classes: int, most: int | None = None) -> tuple[list[str], Task]:
    """Names and tasks of the tables with at most so many features and classes, padded to one shape."""
    family = tabular()
    sizes = {name: family.shape(name) for name in family.names}
    names = [name for name, size in sizes.items() if size.features <= features and size.classes <= classes][:most]
    rows, eval_rows = (max(sizes[name][i] for name in names) for i in (0, 1))
    shape = TaskShape(rows, eval_rows, features, classes)
    return names, jax.tree.map(lambda *leaves: jnp.stack(leaves), *[family.task(name, shape) for name in names])


def relative(problem: Problem) -> Problem:
    """The same problem with its validation loss in units of the data set's prior entropy: 1 is to have learned nothing."""
    return problem._replace(valid_loss=lambda weights, task: problem.valid_loss(weights, task) / task.prior_entropy)


def free_numbers(space: Space, u: Array) -> dict[str, Array]:
    """Of coordinates `u [..., D]` in the unit cube, those of `Free(space)`: each hyperparameter `[...]`, traced."""
    z = jax.scipy.special.logit(jnp.clip(u, EDGE, 1.0 - EDGE))
    return {name: z[..., d] for d, name in enumerate(space.names)}
