"""The data that all competitors share."""

from pathlib import Path

import numpy as np

from experiments.speed_hypergradients import config


def make(tasks: int, path: Path) -> None:
    """Gaussian features with labels on either side of a random plane per task, and the initial weights, the same for all tasks."""
    rng = np.random.default_rng(config.SEED)
    plane = rng.standard_normal((tasks, config.FEATURES, 1)).astype(np.float32)

    def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((tasks, rows, config.FEATURES)).astype(np.float32)
        return x, (x @ plane)[..., 0] > 0

    x, y = split(config.TRAIN_ROWS)
    valid_x, valid_y = split(config.VALID_ROWS)
    w1 = rng.standard_normal((config.HIDDEN, config.FEATURES)) / np.sqrt(config.FEATURES)
    w2 = rng.standard_normal((config.CLASSES, config.HIDDEN)) / np.sqrt(config.HIDDEN)
    np.savez(
        path, x=x, y=y.astype(np.int32), valid_x=valid_x, valid_y=valid_y.astype(np.int32), w1=w1.astype(np.float32),
        w2=w2.astype(np.float32), rate=np.float32(config.RATE), meta_rate=np.float32(config.META_RATE),
    )  # fmt: skip
