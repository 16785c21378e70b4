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

    def arrays(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Every hyperparameter of the points `u [N, D]`, as float32 `[N]`, or int32 for whole numbers and choices (the index in their table).

        Beside them `micro`, rows per micro-batch: the batch where it is fixed, else at most the largest bin; and `accumulate`,
        micro-batches per update.
        """
        u = np.asarray(u, np.float64)
        values = {name: [self.whole[name].decode(x) for x in u[:, i]] for i, name in enumerate(self.space)}
        values |= {name: [value] * len(u) for name, value in self.fixed.items()}
        found = {name: self._array(name, column) for name, column in values.items()}
        batch = found.pop("batch_size")
        micro = batch if "batch_size" in self.fixed else np.minimum(batch, MICRO_BATCHES[-1])
        return found | {"micro": micro, "accumulate": batch // micro}

    def _array(self, name: str, values: Sequence[Any]) -> np.ndarray:
        if name in TABLES:
            return np.asarray([TABLES[name].index(value) for value in values], np.int32)
        return np.asarray(values, np.float32 if isinstance(self.whole[name], Float) else np.int32)

    def bins(self, name: str, values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
        """The smallest of `sizes` that holds each of `values [N]`; the value itself where it is fixed."""
        return values if name in self.fixed else np.asarray(sizes)[np.searchsorted(sizes, values)]
