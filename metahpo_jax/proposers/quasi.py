"""Sobol's low-discrepancy sequence, randomised by a digital shift per run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array, Candidates, Context, Key, Proposal, Proposer
from metahpo_jax.history import History
from metahpo_jax.proposers.pool import forget, propose
from metahpo_jax.spaces import Space

BITS = 30


class SobolState(NamedTuple):
    """The context and the run's digital shift `[D]` uint32."""

    context: Context
    shift: Array


def sobol(space: Space, length: int = 1024) -> Proposer:
    """Sobol points with Joe and Kuo's (2008) direction numbers, from SciPy; trial `i` gets point `i` modulo `length`.

    The digital shift (L'Ecuyer and Lemieux 2002, section 2.3: XOR with random bits) keeps the net's equidistribution and makes runs
    with different keys independent. On a pool, the nearest untried candidate stands in for each point.
    """
    from scipy.stats import qmc

    sequence = qmc.Sobol(space.size, scramble=False, bits=BITS)
    points = (sequence.random_base2(max(length - 1, 1).bit_length()) * 2**BITS).astype(np.uint32)

    def init(key: Key, context: Context) -> SobolState:
        return SobolState(context, jax.random.bits(key, (space.size,), jnp.uint32) >> (32 - BITS))

    def ask(key: Key, state: SobolState, history: History, candidates: Candidates) -> tuple[Proposal, SobolState]:
        index = history.asked(state.context) % points.shape[0]
        shifted = jnp.asarray(points)[index] ^ state.shift
        u = shifted.astype(jnp.float32) * np.float32(2.0**-BITS)
        return propose(state.context, history, candidates, u), state

    return Proposer(init, ask, forget)
