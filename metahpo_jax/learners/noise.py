"""Random numbers of a micro-batch: which rows, and the uniforms of dropout, both of the key and the micro-step alone.

They come from a counter through an integer hash, ten times cheaper than threefry, which would cost more than training a small network: a loop of
five rounds per call on a CPU. Fit for minibatches and masks, not for cryptography.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from metahpo_jax.base import Array, Key

_GOLDEN = 0x9E3779B9


def mixed(x: Array, between: Array | int = 0) -> Array:
    """Two rounds of multiply and xor-shift of uint32 `x`, Wellons's `lowbias32`, with `between` added after the first."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D) + jnp.asarray(between, jnp.uint32)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def micro_key(key: Key, micro_step: Array | int) -> Key:
    """The key of one micro-step of a run: what `fold_in` is for, at the price of an addition."""
    words, step = jax.random.key_data(key), jnp.asarray(micro_step).astype(jnp.uint32)
    return jax.random.wrap_key_data(jnp.stack([words[0] + mixed(step), words[1] ^ mixed(step + jnp.uint32(_GOLDEN))]))


def draw(key: Key, rows: int, count: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Row numbers `[rows]` uint32 below `count`, with replacement, and uniform 32-bit integers of `shape`."""
    first, second = jax.random.key_data(key)
    chosen = uniform(first, second, (rows,)) % count.astype(
        jnp.uint32
    )  # 2^32 mod some thousand rows is no bias worth speaking of
    return chosen, uniform(second, first, shape)


def uniform(first: Array, second: Array, shape: tuple[int, ...]) -> Array:
    """Uniform 32-bit integers of `shape` from two seeds `[]` uint32."""
    counter = lax.iota(jnp.uint32, math.prod(shape)) * jnp.uint32(_GOLDEN)
    return mixed(counter + first, second).reshape(shape)


def kept(bits: Array, rate: Array) -> Array:
    """Which of the uniforms `bits` survive dropout at `rate` in [0, 1)."""
    return bits >= (rate.astype(jnp.float32) * 2.0**32).astype(jnp.uint32)
