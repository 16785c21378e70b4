"""TaskSet-12: 1,000 shared Adam configurations on twelve recurrent text classifiers, with whole curves (Metz et al., 2020)."""

import re
from pathlib import Path

import numpy as np

from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.public.arrays import encode, end_at_divergence
from metahpo_jax.metadata.public.folder import damaged, read_npz, require
from metahpo_jax.spaces import Float, Space

ARRAYS = "taskset12.npz"
COLUMNS = ("learning_rate", "beta1", "beta2", "epsilon", "l1", "l2", "linear_decay", "exponential_decay")
# The ranges of the paper's `adam8p`. It draws 1 - beta on a log scale, so that is what the axes are.
SPACE = Space(
    learning_rate=Float(1e-8, 1e1, log=True),
    one_minus_beta1=Float(1e-4, 1.0, log=True),
    one_minus_beta2=Float(1e-6, 1.0, log=True),
    epsilon=Float(1e-10, 1e3, log=True),
    l1=Float(1e-8, 1e1, log=True),
    l2=Float(1e-8, 1e1, log=True),
    linear_decay=Float(1e-7, 1e-4, log=True),
    exponential_decay=Float(1e-6, 1e-3, log=True),
)
FAMILY = re.compile(r"_(LSTM|GRU|IRNN|VRNN)\d")


def read(data: Path | None) -> Archive:
    """The 12 tasks; loss is the validation loss (nats), capped at the task's median before training, in 51 evaluations.

    Evaluations are 200 updates apart. The first is before training; they are counted from 1, since no fidelity is free.
    A run whose loss stops being finite is DIVERGED from there on; an enormous one is OK, and the cap deals with it.

    Raises:
        StoreError: The file is missing or damaged.
        DataError: It holds a configuration outside the published ranges.
    """
    path = require(data, "taskset", (ARRAYS,)) / ARRAYS
    content = read_npz(path)
    for name in ("tasks", "hyperparameters", "configs", "splits", "loss"):
        if name not in content:
            raise damaged(path, KeyError(name))
    if tuple(content["hyperparameters"].tolist()) != COLUMNS or "valid" not in content["splits"].tolist():
        raise damaged(path, f"expected hyperparameters {', '.join(COLUMNS)} and a split 'valid'")
    shape = (len(content["tasks"]), len(content["configs"]), len(content["splits"]))
    if content["loss"].shape[:-1] != shape or content["configs"].shape[1:] != (len(COLUMNS),):
        raise damaged(path, f"expected loss of shape {shape} and points, got {content['loss'].shape}")
    columns = dict(zip(COLUMNS, content["configs"].T, strict=True))
    columns |= {f"one_minus_{beta}": 1.0 - columns.pop(beta) for beta in ("beta1", "beta2")}
    u = encode(SPACE, columns, str(path))
    validation = content["loss"][:, :, content["splits"].tolist().index("valid")]
    named = zip(content["tasks"].tolist(), validation, strict=True)
    archive = Archive(
        name="taskset",
        spaces={"adam": SPACE},
        tasks=tuple(_task(path, name, u, curves) for name, curves in named),
        metric="validation loss (nats)",
        fidelity=tuple(float(point) for point in range(1, validation.shape[-1] + 1)),
        unit="evaluations",
    )
    archive.validate()
    return archive


def _task(path: Path, name: str, u: np.ndarray, curves: np.ndarray) -> ArchivedTask:
    family = FAMILY.search(name)
    if family is None:
        raise damaged(path, f"task {name!r} names none of LSTM, GRU, IRNN and VRNN")
    loss, status = end_at_divergence(curves, curves.shape[1])
    return ArchivedTask(
        name=name,
        # All twelve learn from the same text. What differs, and is held out, is the model: the task, or its whole family.
        base=name,
        space="adam",
        u=u,
        loss=loss,
        status=status,
        group=family.group(1),
        cap=float(np.nanmedian(loss[:, 0])),
    )
