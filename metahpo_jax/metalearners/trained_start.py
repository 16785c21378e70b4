"""An initial configuration for recorded searches, by MAML on the data sets behind the records: networks are really trained on them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metahpo_jax.base import Key
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import SPACE, Theta, classifier, forward, gradient_descent, relative
from metahpo_jax.metalearners.maml import configuration, maml
from metahpo_jax.spaces import Free, Space
from metahpo_jax.tasks import CATALOGUE, CatalogueFamily, stacked
from metahpo_jax.tasks.base import Task
from metahpo_jax.training import fit

FEATURES, CLASSES = 32, 4  # data sets beyond are not learned from: all are padded to the widest
TASKS, META_STEPS, META_RATE = 8, 60, 0.15  # data sets of a batch; Adam's rate falls to 0 as a cosine
START = {"learning_rate": 0.01, "weight_decay": 1e-4, "label_smoothing": 0.05}
# What is not learned, in the names of the recorded spaces; the networks are trained with it, by Adam and at a constant rate.
STEPS = 300
FIXED = {
    "depth": 2, "width": 32, "batch_size": 32, "activation": "tanh", "optimiser": "adam", "dropout": 0.0, "schedule": "constant",
}  # fmt: skip


def trainable(names: Sequence[str]) -> bool:
    """Whether all are data sets that this library can read."""
    return set(names) <= {source.name for source in CATALOGUE}


def learn_starts(space: Space, folds: Sequence[Sequence[str]], key: Key) -> list[np.ndarray]:
    """Coordinates `[D]` in `space` of a configuration per fold, learned on the data sets that the fold names; all folds train side by side.

    Learning rate, weight decay and label smoothing are learned (Finn et al. 2017 for hyperparameters in place of weights), by forward mode
    through `STEPS` updates of a network of one size.

    Raises:
      ConfigError: when the space is not that of this library's tables, or a fold has no data set that is small enough.
      DataError: when the packages with the data sets are not installed.
    """
    expected = {**FIXED, **START}
    odd = sorted(set(expected) ^ set(space.names))
    odd += [name for name in START if name in space and space[name] != SPACE[name]]
    if odd:
        raise ConfigError(
            f"maml: it learns for spaces of {', '.join(expected)} with the bounds of metahpo_jax's own tables; {odd[0]} differs; leave maml out."
        )
    known = {name for fold in folds for name in fold}
    family = CatalogueFamily([source for source in CATALOGUE if source.name in known])
    sizes = {name: family.shape(name) for name in family.names}
    names = [name for name, size in sizes.items() if size.features <= FEATURES and size.classes <= CLASSES]
    chosen = np.asarray([[name in fold for name in names] for fold in folds])
    if not chosen.any(1).all():
        raise ConfigError(
            f"maml: a fold has no data set of at most {FEATURES} features and {CLASSES} classes to learn from; leave maml out."
        )
    tasks = stacked(family, names)
    batch = int(min(TASKS, chosen.sum(1).min()))

    def some(key: Key, data: tuple[jax.Array, Task]) -> Task:
        mine, tasks = data
        rows = jax.random.choice(key, len(names), (batch,), replace=False, p=mine / jnp.sum(mine))
        return jax.tree.map(lambda leaf: leaf[rows], tasks)

    free = Free(Space.of({name: SPACE[name] for name in START}))
    network = classifier(FIXED["depth"], FIXED["width"], batch=FIXED["batch_size"], activation=FIXED["activation"])
    inner = gradient_descent(relative(network), free, steps=STEPS, optimiser=FIXED["optimiser"])
    learner = maml(
        inner, Theta(free.encode(START)), jax.tree.map(lambda leaf: leaf[:batch], tasks), estimator=forward,
        optimiser=optax.adam(optax.cosine_decay_schedule(META_RATE, META_STEPS)),
    )  # fmt: skip
    result = fit(
        learner, some, jax.random.split(key, len(folds)), steps=META_STEPS, chunk=10, batch=True,
        data=(jnp.asarray(chosen, jnp.float32), tasks), data_axes=(0, None),
    )  # fmt: skip
    thetas = jax.vmap(learner.export)(result.meta_state)
    return [
        configuration(jax.tree.map(lambda leaf, f=f: leaf[f], thetas), free, FIXED, space) for f in range(len(folds))
    ]
