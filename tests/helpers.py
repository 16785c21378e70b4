"""Small made-up inputs that several test files share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.metadata import Archive, ArchivedTask, MetaDataset, TaskRecord
from metahpo_jax.spaces import Choice, Float, Int, Space
from metahpo_jax.tasks import Split, Task


def tiny_space() -> Space:
    """One hyperparameter of each kind, and a condition."""
    return Space(
        learning_rate=Float(1e-4, 1.0, log=True),
        width=Int(8, 128, log=True),
        optimiser=Choice("sgd", "adam"),
        momentum=Float(0.0, 0.99, when={"optimiser": "sgd"}),
    )


def tiny_metadataset(tasks: int = 4, configs: int = 16, points: int = 3, seed: int = 0) -> MetaDataset:
    """A meta-dataset of smooth losses whose best learning rate differs a little from task to task.

    The configuration of the highest learning rate diverges after its first point on every task. Fidelities are
    `3 ** (p + 1)` samples.
    """
    rng = np.random.default_rng(seed)
    space = tiny_space()
    drawn = rng.random((configs, space.size), np.float32)
    decoded = [space.decode(row) for row in drawn]
    active = np.array([[name in config for name in space] for config in decoded])
    u = np.where(active, [space.encode(config) for config in decoded], drawn).astype(np.float32)
    fidelity = 3.0 ** np.arange(1, points + 1)
    classes = 2 + np.arange(tasks) % 3
    prior = 0.98 * np.log(classes)

    optimum = 0.6 + 0.1 * rng.standard_normal(tasks)
    floor = 0.05 + 0.4 * (u[None, :, 0] - optimum[:, None]) ** 2 + 0.02 * (u[None, :, 1] - 0.7) ** 2  # `[T, N]`
    progress = 1.0 - np.exp(-3.0 * (np.arange(points) + 1) / points)  # `[P]`
    # A share of what there is to gain over the prior, so that losses stay between 0 and the prior entropy.
    loss = prior[:, None, None] * (1.0 - progress * (1.0 - floor[:, :, None]))
    accuracy = 1.0 - 0.7 * loss / prior[:, None, None]
    cost = fidelity[None, None, :] * 1e3 * (1.0 + np.arange(tasks))[:, None, None] * (1.0 + u[None, :, 1, None])

    status = np.full((tasks, configs), Status.OK, np.int8)
    diverged_at = np.full((tasks, configs), np.nan, np.float32)
    diverging = int(np.argmax(u[:, 0]))
    status[:, diverging] = Status.DIVERGED
    diverged_at[:, diverging] = 0.5 * (fidelity[0] + fidelity[1]) if points > 1 else fidelity[0]
    over = fidelity[None, None, :] >= np.nan_to_num(diverged_at, nan=np.inf)[:, :, None]  # `[T, N, P]`

    def curve(values: np.ndarray) -> np.ndarray:
        whole = np.broadcast_to(values, (tasks, configs, points))
        return np.where(over, np.nan, whole).astype(np.float32)

    return MetaDataset(
        name="tiny",
        space=space,
        tasks=tuple(
            TaskRecord(
                name=f"task-{t}",
                base=f"base-{t // 2}",
                source="made up",
                licence="CC0-1.0",
                n_train=100 + t,
                n_valid=30,
                n_test=40,
                n_features=5 + t,
                n_classes=int(classes[t]),
                prior_entropy=float(prior[t]),
                descriptor=np.array([t, np.nan if t == 1 else 0.5, np.log(100 + t)], np.float32),
            )
            for t in range(tasks)
        ),
        descriptor_names=("number", "sometimes_missing", "log_rows"),
        u=u,
        fidelity=fidelity,
        unit="samples",
        valid_loss=curve(loss),
        valid_accuracy=curve(accuracy),
        test_accuracy=curve(accuracy - 0.01),
        train_loss=curve(0.9 * loss),
        gradient_norm=curve(0.1 + loss),
        learning_rate=curve(10.0 ** (-4.0 + 4.0 * u[None, :, 0, None])),
        flops=np.broadcast_to(cost, (tasks, configs, points)).astype(np.float64),
        status=status,
        diverged_at=diverged_at,
        provenance=tuple({"task": f"task-{t}", "seconds": 0.5 * t} for t in range(tasks)),
    )


def tiny_archive(seed: int = 0) -> Archive:
    """Six tasks of three data sets over two spaces, each with 10 to 15 configurations of its own, the fifth of which failed."""
    rng = np.random.default_rng(seed)
    spaces = {"plain": Space(x=Float(0.0, 1.0), y=Float(0.0, 1.0)), "mixed": tiny_space()}
    tasks = []
    for t in range(6):
        space = "plain" if t < 3 else "mixed"
        n = 10 + t
        u = np.array([spaces[space].encode(spaces[space].decode(row)) for row in rng.random((n, spaces[space].size))])
        loss = ((u[:, :2] - 0.3 - 0.1 * (t % 3)) ** 2).sum(1, keepdims=True) + 0.01 * rng.random((n, 1))
        status = np.full(n, Status.OK, np.int8)
        loss[4], status[4] = np.nan, Status.DIVERGED
        tasks.append(
            ArchivedTask(
                name=f"{space}-{t % 3}",
                base=f"data-{t % 3}",
                space=space,
                u=u.astype(np.float32),
                loss=loss.astype(np.float32),
                status=status,
                group=f"group-{t % 2}",
                size=100.0 * (1 + t % 3),
            )
        )
    return Archive("tiny-archive", spaces, tuple(tasks), metric="squared error")


def make_task(dtype: Any = np.float32, rows=300, features=6, classes=3, padded=(8, 4), seed=0) -> Task:
    """A learnable three-class problem with padded features and classes; two thirds of the rows are trained on."""
    trained, seen = 2 * rows // 3, 5 * rows // 6
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    y = np.argmax(x @ rng.standard_normal((features, classes)) + 0.3 * rng.standard_normal((rows, classes)), 1)
    wide = np.zeros((rows, padded[0]))
    wide[:, :features] = x

    def split(low: int, high: int) -> Split:
        return Split(
            jnp.asarray(wide[low:high], dtype), jnp.asarray(y[low:high], jnp.int32), jnp.asarray(high - low, jnp.int32)
        )

    return Task(
        train=split(0, trained), valid=split(trained, seen), test=split(seen, rows), class_mask=jnp.arange(padded[1]) < classes,
        n_features=jnp.asarray(features, jnp.int32), prior_entropy=jnp.asarray(1.1, jnp.float32),
        descriptor=jnp.zeros(0, jnp.float32), descriptor_mask=jnp.zeros(0, bool),
    )  # fmt: skip


def bowl(key, theta, task):
    """A noisy quadratic around the task."""
    error = theta["w"] - task + 0.1 * jax.random.normal(key, task.shape, task.dtype)
    return jnp.mean(error**2) + 0.1 * theta["b"] ** 2, {"distance": jnp.max(jnp.abs(error))}


def bowl_theta(key):
    """Where learning on a bowl begins."""
    return {"w": jax.random.normal(key, (3,), jnp.float32), "b": jnp.asarray(1.0, jnp.float32)}


def bits(tree) -> list[bytes]:
    """The bytes of every leaf, to hold results to each other bit by bit."""

    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return [np.asarray(data(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]
