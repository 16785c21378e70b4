"""Hyperparameters of training that networks of all kinds share: their dimensions, and how points of a space become arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metahpo_jax.errors import ConfigError, SpaceError
from metahpo_jax.learners.activations import ACTIVATIONS
from metahpo_jax.learners.optimisers import OPTIMISERS
from metahpo_jax.schedules import SCHEDULES
from metahpo_jax.spaces import Choice, Float, Space
from metahpo_jax.spaces.dimensions import Dimension

BATCHES = (16, 32, 64, 128, 256)
MICRO_BATCHES = (16, 32, 64)
TABLES = {"activation": ACTIVATIONS, "optimiser": OPTIMISERS, "schedule": SCHEDULES}

TRAINING: dict[str, Dimension] = {
    "batch_size": Choice(*BATCHES, ordered=True),
    "activation": Choice(*ACTIVATIONS),
    "optimiser": Choice(*OPTIMISERS),
    "learning_rate": Float(1e-4, 1.0, log=True),
    "weight_decay": Float(1e-6, 1e-1, log=True),
    "dropout": Float(0.0, 0.6),
    "label_smoothing": Float(0.0, 0.2),
    "schedule": Choice(*SCHEDULES),
}


class Settings:
    """A space in which some hyperparameters are fixed: what varies, and what programs may therefore leave out."""

    def __init__(self, whole: Space, fixed: Mapping[str, Any]):
        """Fix some of a space.

        Raises:
          ConfigError: for a name that the space does not have, a value that it does not hold, or when nothing is left to vary.
        """
        for name, value in fixed.items():
            if name not in whole:
                raise ConfigError(f"fixed: {name!r} is not a hyperparameter; known are {', '.join(whole.names)}.")
            try:
                whole[name].encode(value)
            except SpaceError as error:
                raise ConfigError(f"fixed: {name}={value!r}: {error}") from None
        left = {name: whole[name] for name in whole if name not in fixed}
        if not left:
            raise ConfigError("fixed: every hyperparameter is fixed; leave at least one to vary.")
        self.whole, self.fixed, self.space = whole, dict(fixed), Space.of(left)

    def among(self, name: str) -> tuple[str, ...]:
        """The values of a choice that can occur."""
        return (self.fixed[name],) if name in self.fixed else TABLES[name]

    def can_be_positive(self, name: str) -> bool:
        """Whether there is such a rate and it can differ from 0."""
        return name in self.whole and self.fixed.get(name, 1.0) > 0.0

    def rows(self, u: np.ndarray) -> list[dict[str, Any]]:
        """Every hyperparameter of each of `u [N, D]`, in natural units."""
        return [self.fixed | self.space.decode(point) for point in np.asarray(u)]

    def micro(self, batch: int) -> int:
        """Rows per micro-batch: the batch itself where it is fixed, else at most the largest bin."""
        return batch if "batch_size" in self.fixed else min(batch, MICRO_BATCHES[-1])


def column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One hyperparameter `[N]`: float32, or int32 for whole numbers and for choices (the index in their table)."""
    values = [row[name] for row in rows]
    if name in TABLES:
        return np.asarray([TABLES[name].index(value) for value in values], np.int32)
    return np.asarray(values, np.int32 if all(isinstance(v, (int, np.integer)) for v in values) else np.float32)
