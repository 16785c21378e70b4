"""Weights of training images learned by hypergradients, so that those with wrong labels stop counting (Franceschi et al. 2017, section 5.1).

python -m experiments.hypercleaning.run            # needs `make datasets`; writes experiments/hypercleaning/results.json and a picture
python -m experiments.hypercleaning.run --quick
"""

import math
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
from experiments.mnist import CLASSES, Images, accuracy, cross_entropies, drawn
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Inner, estimator_of
from metahpo_jax.metalearners import descent
from metahpo_jax.training import fit


class Cleaning(NamedTuple):
    """One draw of the problem."""

    train: Images  # some with wrong labels
    valid: Images
    test: Images
    wrong: Array  # `[N]` bool


def problem(seed: int) -> Cleaning:
    """Splits MNIST-5k and gives some training images the label of another class."""
    (x, y), valid, test = drawn((config.SEED, seed), (config.TRAIN, config.VALID, config.TEST))
    rng = np.random.default_rng((config.SEED, seed, 1))
    wrong = rng.permutation(config.TRAIN) < config.WRONG * config.TRAIN
    labels = (np.asarray(y) + wrong * rng.integers(1, CLASSES, config.TRAIN)) % CLASSES
    return Cleaning((x, jnp.asarray(labels, jnp.int32)), valid, test, jnp.asarray(wrong))


def inner() -> Inner:
    """Softmax regression by gradient descent on the training images, each of which counts as much as its weight in `theta [N]`."""

    def loss(key: Key, theta: Array, w: Array, task: Cleaning) -> Array:
        return jnp.mean(theta * cross_entropies(w, task.train))

    return Inner(
        init=lambda key, theta, task: nothing(task.train),
        step=lambda key, theta, w, task, index: w - config.RATE * jax.grad(loss, argnums=2)(key, theta, w, task),
        loss=lambda key, theta, w, task: jnp.mean(cross_entropies(w, task.valid)),
        horizon=config.STEPS,
        inner_loss=loss,
    )


def nearest(weights: Array, total: float) -> Array:
    """The point nearest to `weights [N]` of those from 0 to 1 that add up to at most `total`: all are lowered alike before they are cut."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        enough = jnp.sum(jnp.clip(weights - middle, 0, 1)) <= total
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    _, lowered = jax.lax.fori_loop(0, 40, halve, (jnp.zeros(()), jnp.max(weights)))
    inside = jnp.clip(weights, 0, 1)
    return jnp.where(jnp.sum(inside) <= total, inside, jnp.clip(weights - lowered, 0, 1))


def projected(total: float) -> optax.GradientTransformation:
    """Makes an update end in the nearest weights that are allowed."""

    def update(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        allowed = jax.tree.map(lambda p, u: nearest(p + u, total), params, updates)
        return optax.tree.sub(allowed, params)

    return optax.stateless(update)


def nothing(images: Images) -> Array:
    """Weights of zero."""
    return jnp.zeros((images[0].shape[1], CLASSES), jnp.float32)


@jax.jit
def tested(weights: Array, task: Cleaning) -> Array:
    """Test accuracy after training on the weighted training images and all validation images."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), task.train, task.valid)
    weights = jnp.concatenate([weights, jnp.ones(config.VALID, jnp.float32)])

    def loss(w: Array) -> Array:
        return jnp.sum(weights * cross_entropies(w, both)) / jnp.sum(weights)

    def step(_: int, w: Array) -> Array:
        return w - config.FINAL_RATE * jax.grad(loss)(w)

    return accuracy(jax.lax.fori_loop(0, config.FINAL_STEPS, step, nothing(both)), task.test)


def one_draw(seed: int, meta_steps: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Test accuracies and F1; learned weights and which labels were wrong."""
    task = problem(seed)
    tasks = jax.tree.map(lambda x: x[None], task)
    total = config.TOTAL * config.TRAIN
    theta = jnp.full(config.TRAIN, config.TOTAL, jnp.float32)
    chosen = estimator_of("auto", inner(), theta, task)
    print(f"draw {seed}: {chosen.name}, since {chosen.reason}", file=sys.stderr, flush=True)
    optimiser = optax.chain(optax.adam(config.META_RATE), projected(total))
    learner = descent(chosen.hypergrad, lambda key: theta, optimiser, max_norm=None)

    def sample(key: Key, data: PyTree) -> PyTree:
        return data

    result = fit(learner, sample, jax.random.key(seed), steps=meta_steps, chunk=10, data=tasks, progress=True)
    weights, wrong = np.asarray(learner.export(result.meta_state)), np.asarray(task.wrong)
    flagged = weights < config.LEVEL
    variants = {
        "no_cleaning": np.ones(config.TRAIN), "oracle": ~wrong, "validation_only": np.zeros(config.TRAIN), "learned": weights,
        "cleaned": ~flagged,
    }  # fmt: skip
    found = {name: float(tested(jnp.asarray(own, jnp.float32), task)) for name, own in variants.items()}
    found["f1"] = float(2 * np.sum(flagged & wrong) / (flagged.sum() + wrong.sum()))
    gap = found["oracle"] - found["no_cleaning"]
    found["share_of_gap"] = (found["cleaned"] - found["no_cleaning"]) / gap if gap > 0 else math.nan
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
    gains = [a - b for a, b in zip(figures["cleaned"], figures["no_cleaning"], strict=True)]
    claims = [
        at_least("cleaned - no cleaning, test accuracy, worst draw", min(gains), 0.0),
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
