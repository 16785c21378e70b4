"""The problem that all competitors solve: data, initial weights, minibatches and hyperparameters, made once and handed to each."""

from pathlib import Path

import numpy as np

from experiments.speed_population import config


def make(size: str, path: Path) -> None:
    """Writes the arrays of one size: features `x [N, F]`, labels `y [N]`, weights of all models, rows of each step, rates and decays."""
    import jax

    from metahpo_jax.base import training_keys
    from metahpo_jax.learners.noise import draw, micro_key

    features, _, classes = config.SIZES[size]
    rng = np.random.default_rng(config.SEED)
    x = rng.standard_normal((4096, features)).astype(np.float32)
    y = np.argmax(x @ rng.standard_normal((features, classes)), 1).astype(np.int32)
    learner, h, task = learner_of(size, x, y)
    init_key, train_key = training_keys(jax.random.key(config.SEED))
    one = jax.tree.map(lambda v: v[0], h)
    (w1, b1), (w2, b2) = learner.init(init_key, one, task).params
    steps = np.arange(config.STEPS[size])
    rows = jax.vmap(lambda t: draw(micro_key(train_key, t), config.BATCH, task.train.count, (0,))[0])(steps)
    np.savez(
        path, x=x, y=y, w1=w1, b1=b1, w2=w2, b2=b2, rows=np.asarray(rows, np.int32),
        rate=np.asarray(h.learning_rate), decay=np.asarray(h.weight_decay),
    )  # fmt: skip


def family_of(size: str):
    """Networks with one hidden layer under momentum; rate and decay vary."""
    from metahpo_jax.learners import mlp_family

    return mlp_family(
        depth=1, width=config.SIZES[size][1], batch_size=config.BATCH, activation="relu", optimiser="momentum", dropout=0.0,
        label_smoothing=0.0, schedule="constant",
    )  # fmt: skip


def points_of(size: str) -> np.ndarray:
    """Configurations `[models, 2]`: learning rates from 1e-4 to .1, any decay."""
    u = np.random.default_rng(config.SEED).random((config.MODELS[size], 2)).astype(np.float32)
    u[:, 0] *= 0.75
    return u


def task_of(x: np.ndarray, y: np.ndarray):
    """The data as a task; validation and test are their first rows."""
    import jax.numpy as jnp

    from metahpo_jax.tasks import Split, Task

    def split(count: int) -> Split:
        return Split(jnp.asarray(x[:count]), jnp.asarray(y[:count]), jnp.asarray(count, jnp.int32))

    return Task(
        train=split(len(x)), valid=split(256), test=split(256), class_mask=jnp.ones(int(y.max()) + 1, bool),
        n_features=jnp.asarray(x.shape[1], jnp.int32), prior_entropy=jnp.asarray(1.0, jnp.float32),
        descriptor=jnp.zeros(0, jnp.float32), descriptor_mask=jnp.zeros(0, bool),
    )  # fmt: skip


def learner_of(size: str, x: np.ndarray, y: np.ndarray, *, fused: bool = True):
    """The learner of a size, hyperparameters `[models]` and the task."""
    from metahpo_jax.learners import mlp_space
    from metahpo_jax.learners.mlp import mlp, mlp_configs
    from metahpo_jax.learners.settings import Settings

    fixed = {
        "depth": 1, "width": config.SIZES[size][1], "batch_size": config.BATCH, "activation": "relu", "optimiser": "momentum", "dropout": 0.0,
        "label_smoothing": 0.0, "schedule": "constant",
    }  # fmt: skip
    settings = Settings(mlp_space(), fixed)
    h, capacities = mlp_configs(points_of(size), settings)
    horizon = config.STEPS[size] * config.BATCH
    return mlp(capacities[0], horizon=horizon, points=(horizon,), settings=settings, fused=fused), h, task_of(x, y)


def flops(size: str) -> float:
    """Model FLOPs of one training."""
    features, hidden, classes = config.SIZES[size]
    per_sample = 4 * features * hidden + 6 * hidden * classes
    return float(per_sample) * config.BATCH * config.STEPS[size]
