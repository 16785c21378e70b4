"""Three standard schedules as one function of a traced index, so that configurations with different ones share a program."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from metahpo_jax.base import Array

SCHEDULES = ("constant", "cosine", "warmup_cosine")
WARMUP = 0.05  # share of the horizon that the linear warm-up takes


def factor(schedule: Array, progress: Array) -> Array:
    """What the base learning rate is multiplied with, `[]` in [0, 1].

    Args:
      schedule: index into `SCHEDULES`.
      progress: samples seen before the update / horizon, in [0, 1].

    Cosine: Loshchilov and Hutter (2017), section 3, one period. Warm-up: Goyal et al. (2017), section 2.2, from 0 over the first
    `WARMUP` of the horizon, then the cosine over the rest.
    """
    after_warmup = jnp.clip((progress - WARMUP) / (1.0 - WARMUP), 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    warm = 0.5 * (1.0 + jnp.cos(jnp.pi * after_warmup))
    warmup_cosine = jnp.where(progress < WARMUP, progress / WARMUP, warm)
    return jnp.where(schedule == 0, 1.0, jnp.where(schedule == 1, cosine, warmup_cosine)).astype(progress.dtype)


def as_optax(schedule: int, learning_rate: float, updates: int) -> optax.Schedule:
    """The same schedule as a function of the update count, for use with optax, over a horizon of `updates`."""

    def rate(count: ArrayLike) -> Array:
        progress = jnp.asarray(count, jnp.result_type(float)) / updates
        return learning_rate * factor(jnp.asarray(schedule), progress)

    return rate
