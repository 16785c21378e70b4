"""Which estimator to take, by the number of hyperparameters, the horizon and the memory at hand."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metahpo_jax.base import HyperGrad, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.evolution import full_es, nres
from metahpo_jax.hypergrad.forward import forward
from metahpo_jax.hypergrad.inner import Inner
from metahpo_jax.hypergrad.reverse import checkpointed, reverse

FEW = 16  # entries of theta up to which forward mode costs no more than the alternatives
PAIRS = 8  # of perturbations that noise-reuse evolution strategies take where memory allows
MEMORY = 1 << 30  # bytes that all tasks' kept states may take

BY_NAME: dict[str, Callable[[Inner], HyperGrad]] = {
    "reverse": reverse, "checkpointed": checkpointed, "forward": forward, "full_es": full_es,
}  # fmt: skip
Estimator = str | Callable[[Inner], HyperGrad]


class Chosen(NamedTuple):
    """An estimator, what it is called, and why it was taken."""

    hypergrad: HyperGrad
    name: str
    reason: str


def estimator_of(
    estimator: Estimator, inner: Inner, theta: PyTree, task: PyTree, *, tasks: int = 1, memory: int = MEMORY
) -> Chosen:  # fmt: skip
    """The estimator of a name, `"auto"` included, or of a function of `inner`, such as `lambda inner: truncated(inner, 10)`.

    Args:
      theta, task: examples, of which only shapes and types count.
      tasks: how many are differentiated at once.
      memory: bytes that may be spent on kept states; what reverse mode keeps within an update comes on top, a few times as much.

    `auto` takes forward mode for at most `FEW` entries of `theta`, else reverse mode where the states of the whole horizon fit into memory,
    with checkpoints where only twice its square root does, and noise-reuse evolution strategies where not even that does.

    Raises:
      ConfigError: for an unknown name, or theta that has no derivative.
    """
    entries = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(theta))
    discrete = [
        jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(theta)
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
    ]  # fmt: skip
    if discrete:
        raise ConfigError(
            f"estimator: theta{discrete[0]} is not a floating-point number, so it has no derivative; search over it with a proposer, "
            "or round a real number inside the training and take an evolution strategy (full_es)."
        )
    if callable(estimator):
        return Chosen(estimator(inner), getattr(estimator, "__name__", "custom"), "as given")
    if estimator != "auto":
        if estimator not in BY_NAME:
            raise ConfigError(
                f"estimator: expected auto, {', '.join(BY_NAME)} or a function of the inner training, got {estimator!r}."
            )
        return Chosen(BY_NAME[estimator](inner), estimator, "as given")
    if entries <= FEW:
        why = f"theta has {entries} entries (at most {FEW}): one tangent each, and memory that does not depend on the horizon"
        return Chosen(forward(inner), "forward", why)
    state = jax.eval_shape(inner.init, jax.random.key(0), theta, task)
    size = tasks * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    root = max(1, math.isqrt(inner.horizon))
    needs = f"{inner.horizon} states of {size / 2**20:.3g} MiB"
    if size * inner.horizon <= memory:
        return Chosen(
            reverse(inner), "reverse", f"theta has {entries} entries, and {needs} fit into {memory / 2**20:.0f} MiB"
        )
    if 2 * root * size <= memory:
        return Chosen(
            checkpointed(inner),
            "checkpointed",
            f"{needs} do not fit into {memory / 2**20:.0f} MiB, but {2 * root} of them do",
        )
    window = max(d for d in range(1, root + 1) if inner.horizon % d == 0)
    pairs = int(min(max(memory // (2 * size), 1), PAIRS))  # each keeps two states
    return Chosen(
        nres(inner, window, pairs=pairs),
        "nres",
        f"not even {2 * root} states of {size / 2**20:.3g} MiB fit into {memory / 2**20:.0f} MiB, but the {2 * pairs} of {pairs} pairs "
        f"{'do' if 2 * pairs * size <= memory else 'are the least there is'}; what it descends is the sum of the losses after every {window} "
        "updates, smoothed",
    )
