"""SGD, momentum, Adam and AdamW as one update rule whose kind is a traced index, equal to optax's chains.

`sgd`, `momentum` and `adam` add `weight_decay * parameter` to the gradient (L2, `optax.add_decayed_weights` first); `adamw` decays
decoupled from the gradient (Loshchilov and Hutter 2019, algorithm 2, `optax.adamw`).
"""

import jax.numpy as jnp

from metahpo_jax.base import Array

OPTIMISERS = ("sgd", "momentum", "adam", "adamw")
MOMENTUM = 0.9
ADAM_B1, ADAM_B2, ADAM_EPS = 0.9, 0.999, 1e-8


def update(
    optimiser: Array, learning_rate: Array, weight_decay: Array, count: Array, gradient: Array, params: Array,
    first: Array, second: Array, among: tuple[str, ...] = OPTIMISERS,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """One update of one array of weights of one network; `count` (from 1) numbers it. Returns params and moments.

    `among` says which optimisers can occur: where none is adaptive, the second moment is left alone.
    """
    dtype = learning_rate.dtype
    is_adam, is_adamw = optimiser >= 2, optimiser == 3
    coupled = jnp.where(is_adamw, 0.0, weight_decay).astype(dtype)
    decay = jnp.where(optimiser == 0, 0.0, jnp.where(is_adam, ADAM_B1, MOMENTUM)).astype(dtype)
    gradient = gradient + coupled * params
    if not {"adam", "adamw"} & set(among):
        first = decay * first + gradient
        return params - learning_rate * first, first, second
    decoupled = jnp.where(is_adamw, weight_decay, 0.0).astype(dtype)
    weight = jnp.where(is_adam, 1.0 - ADAM_B1, 1.0).astype(dtype)
    correct1 = jnp.where(is_adam, 1.0 - jnp.power(jnp.asarray(ADAM_B1, dtype), count.astype(dtype)), 1.0)
    correct2 = 1.0 - jnp.power(jnp.asarray(ADAM_B2, dtype), count.astype(dtype))
    first = decay * first + weight * gradient
    second = ADAM_B2 * second + (1.0 - ADAM_B2) * gradient * gradient
    scale = jnp.where(is_adam, jnp.sqrt(second / correct2) + ADAM_EPS, 1.0)
    return params - learning_rate * (first / (correct1 * scale) + decoupled * params), first, second
