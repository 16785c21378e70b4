"""How good a meta-dataset is: how often runs failed, how evenly the space is covered, what each task has to gain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.metadata.schema import MetaDataset

RANDOM_REPEATS = 5


def summarise(dataset: MetaDataset) -> dict[str, Any]:
    """Facts to print beside a meta-dataset, as plain JSON values.

    Returns:
      `tasks`, `bases`, `configurations`, `points`; `failed` (share of runs that did not end well) and `worst_task` with
      its `worst_failed`; `discrepancy` of the configurations beside `random_discrepancy`, the mean over sets of as many
      uniform ones snapped to the same levels (centred L2 discrepancy, Hickernell 1998; lower is more even); total
      `flops`; and `per_task` with `best`, `median` and `worst` objective in nats and the share `failed`.
    """
    from scipy.stats import qmc

    failed = (dataset.status != Status.OK).mean(1)  # `[T]`
    worst = int(np.argmax(failed))
    rng = np.random.default_rng(0)
    snap = jax.jit(jax.vmap(dataset.space.snap))
    uniform = [np.asarray(snap(jnp.asarray(rng.random(dataset.u.shape, np.float32)))) for _ in range(RANDOM_REPEATS)]
    objective = dataset.objective()
    return {
        "tasks": len(dataset.tasks),
        "bases": len(dataset.bases),
        "configurations": len(dataset.u),
        "points": len(dataset.fidelity),
        "failed": float(failed.mean()),
        "worst_task": dataset.tasks[worst].name,
        "worst_failed": float(failed[worst]),
        "discrepancy": float(qmc.discrepancy(dataset.u.astype(np.float64))),
        "random_discrepancy": float(np.mean([qmc.discrepancy(u.astype(np.float64)) for u in uniform])),
        "flops": float(np.nan_to_num(dataset.flops).max(2).sum()),  # a diverged run is charged in full, as planned
        "per_task": {
            task.name: {
                "best": float(objective[t].min()),
                "median": float(np.median(objective[t])),
                "worst": float(objective[t].max()),
                "failed": float(failed[t]),
            }
            for t, task in enumerate(dataset.tasks)
        },
    }
