"""Building a meta-dataset: the same configurations really trained on every task, in a build that can be stopped and resumed.

The engine (`metahpo_jax.population`) does the training and writes every finished call to a log beside the result; this module says what is
trained, and makes a `MetaDataset` of what came of it.
"""

import hashlib
import json
import os
import platform
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import qmc

from metahpo_jax.base import Status, run_key
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners import LearnerFamily, cnn_family, mlp_family
from metahpo_jax.learners.settings import BATCHES, MICRO_BATCHES
from metahpo_jax.metadata.schema import MetaDataset, TaskRecord
from metahpo_jax.metadata.store import save_metadataset
from metahpo_jax.population import CURVE_FIELDS, POINTS, Progress, R, ResultLog, train_population
from metahpo_jax.population.devices import cores
from metahpo_jax.spaces import Space
from metahpo_jax.tasks import DataSet, TaskFamily, bundled, image_tasks, tabular
from metahpo_jax.tasks.family import ROWS

RECIPE = 3  # raise it when a learner or the data sets change, so that older logs are refused
MAX_FEATURES = 64  # wider tables would need programs of their own for a handful of tasks
IMAGE_SAMPLES = R // 3


class Edition(NamedTuple):
    """What `metahpo build` knows by name: where the tasks come from, what is trained on them, and for how many samples."""

    tasks: Callable[[Path | None], TaskFamily]  # the folder of further data
    learner: Callable[[], LearnerFamily]
    samples: int
    most_features: int


def image_networks() -> LearnerFamily:
    """Small convolutional networks over learning rate, batch size, blocks and dropout."""
    return cnn_family(
        channels=16, kernel=3, activation="relu", optimiser="momentum", weight_decay=1e-4, label_smoothing=0.0, schedule="cosine"
    )  # fmt: skip


EDITIONS: dict[str, Edition] = {
    "tabular": Edition(lambda _: tabular(), mlp_family, R, MAX_FEATURES),
    "bundled": Edition(lambda _: bundled(), mlp_family, R, MAX_FEATURES),
    "images": Edition(image_tasks, image_networks, IMAGE_SAMPLES, 256),
}


@dataclass(frozen=True)
class BuildPlan:
    """What is trained: enough to train it again."""

    name: str
    family: TaskFamily
    learner: LearnerFamily
    tasks: tuple[str, ...]
    configurations: int
    seed: int = 0
    training_seed: int = 0  # of weights and minibatches
    samples: int = R

    @property
    def points(self) -> tuple[int, ...]:
        """Samples at which curves are recorded: shares of a run as in `POINTS`, in whole micro-batches, none before the first update."""
        micro = MICRO_BATCHES[-1]
        near = {max(BATCHES[-1], micro * round(point * self.samples / R / micro)) for point in POINTS}
        return tuple(sorted(near))

    @property
    def u(self) -> np.ndarray:
        """The configurations, `[N, D]` float32."""
        return configurations(self.learner.space, self.configurations, self.seed)

    def identity(self, data: list[DataSet]) -> str:
        """Text that runs of one build share and runs of another do not: settings and contents."""
        sums = [[zlib.crc32(getattr(d, field).tobytes()) for field in ROWS] for d in data]
        fields = [
            RECIPE, self.name, self.learner.name, self.learner.space.hash, self.learner.fixed, self.tasks, self.configurations, self.seed,
            self.training_seed, self.points, sums,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    def again(self, configurations: int) -> "BuildPlan":
        """The first configurations a second time, with other weights and minibatches: what noise is measured by."""
        return replace(
            self, name=f"{self.name}-again", configurations=configurations, training_seed=self.training_seed + 1
        )


def configurations(space: Space, count: int, seed: int) -> np.ndarray:
    """Scrambled Sobol points (Owen 1998) of a space, snapped, `[count, D]` float32; fewer are the first of more."""
    sequence = qmc.Sobol(space.size, scramble=True, rng=np.random.default_rng(seed))
    points = sequence.random_base2(max(count - 1, 1).bit_length())[:count]
    return np.asarray([space.encode(space.decode(p)) for p in points], np.float32)


def task_id(name: str) -> int:
    """The number that stands for a task in its run's key: of its name alone, so that adding tasks changes no other's runs."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def make_plan(name: str, count: int | None, configs: int, seed: int, data: Path | None = None) -> BuildPlan:
    """The first `count` tasks of an edition (all when None) that are not wider than its limit.

    Raises:
      ConfigError: for an unknown edition, no task, or fewer than two configurations.
    """
    if name not in EDITIONS:
        raise ConfigError(f"family must be one of {', '.join(EDITIONS)}, got {name!r}.")
    for what, value, least in (("tasks", 1 if count is None else count, 1), ("configurations", configs, 2)):
        if value < least:
            raise ConfigError(f"{what} must be at least {least}, got {value}.")
    edition = EDITIONS[name]
    family = edition.tasks(data)
    fitting = tuple(islice((n for n in family.names if family.shape(n).features <= edition.most_features), count))
    return BuildPlan(name, family, edition.learner(), fitting, configs, seed, samples=edition.samples)


def build(plan: BuildPlan, log: Path, progress: Callable[[Progress], None] | None = None) -> MetaDataset:
    """Trains what is planned. Stop it at any time and call it again: finished calls are in `log` and are not trained twice.

    Raises:
      StoreError: when `log` cannot be written or belongs to another build.
    """
    data = [plan.family.load(name) for name in plan.tasks]
    shapes = [plan.family.shape(name) for name in plan.tasks]
    tasks = [plan.family.task(name, shape) for name, shape in zip(plan.tasks, shapes, strict=True)]
    root = jax.random.key(plan.seed)
    keys = jax.numpy.stack([run_key(root, task_id(name), plan.training_seed) for name in plan.tasks])[:, None]
    latest: list[Progress] = []

    def note(now: Progress) -> None:
        latest[:] = [now]
        if progress is not None:
            progress(now)

    results = ResultLog(log, plan.identity(data))
    try:
        done = train_population(
            plan.learner, plan.u, tasks, keys, horizon=plan.samples, points=plan.points, log=results, progress=note
        )
    finally:
        results.close()
    curve, diverged_at = done.curve, done.diverged_at[:, 0]
    trainings = diverged_at.size
    useful = float(done.flops[..., -1].sum())
    provenance: dict[str, Any] = {
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "cores": cores(), "system": platform.system(), "devices": len(jax.local_devices()), "trainings": trainings,
        "seconds": round(done.seconds, 1), "trainings_per_second": round(trainings / max(done.seconds, 1e-9), 2),
        "useful_flops": useful, "executed_flops": done.executed, "useful_gflops_per_second": round(useful / max(done.seconds, 1e-9) / 1e9, 1),
        "shapes_and_capacities": done.programs, "programs_of_last_call": latest[0].programs, "learner": plan.learner.name,
        "fixed": dict(plan.learner.fixed),
    }  # fmt: skip
    return MetaDataset(
        name=plan.name,
        space=plan.learner.space,
        tasks=tuple(task_record(record) for record in data),
        descriptor_names=plan.family.descriptors,
        u=plan.u,
        fidelity=np.asarray(plan.points, np.float64),
        unit="samples",
        flops=done.flops[:, 0],
        status=np.where(
            np.asarray(curve.status)[:, 0, :, -1] == Status.OK, int(Status.OK), int(Status.DIVERGED)
        ).astype(np.int8),
        diverged_at=diverged_at.astype(np.float32),
        provenance=(provenance,),
        **{field: np.asarray(getattr(curve, field))[:, 0] for field in CURVE_FIELDS},
    )


def build_meta_dataset(
    family: TaskFamily, *, learner: LearnerFamily | None = None, configurations: int = 64, samples: int = R, seed: int = 0, name: str = "own",
    out: str | os.PathLike[str] | None = None, progress: Callable[[Progress], None] | None = None,
) -> MetaDataset:  # fmt: skip
    """Trains the same configurations on every task of a family and returns what came of it, saved to the folder `out` where one is given.

    With `out`, the build may be stopped at any time and goes on when called again: what is finished lies in `out` + ".log" until all is.

    Args:
      family: the tasks, such as `csv_family(folder)`.
      learner: what is trained; masked multilayer perceptrons by default.
      configurations: a power of two is best, since they are Sobol points.
      samples: of a whole run.

    Raises:
      ConfigError: when `configurations` is below 2, `samples` no number of whole micro-batches, or a task is too wide for its shape.
      StoreError: when `out` cannot be written, or its log belongs to another build.
    """
    if configurations < 2:
        raise ConfigError(f"configurations must be at least 2, got {configurations}.")
    if samples < BATCHES[-1] or samples % MICRO_BATCHES[-1]:
        raise ConfigError(
            f"samples must be a multiple of {MICRO_BATCHES[-1]} and at least {BATCHES[-1]}, got {samples}."
        )
    plan = BuildPlan(name, family, learner or mlp_family(), tuple(family.names), configurations, seed, samples=samples)
    if out is None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return build(plan, Path(folder) / "build.log", progress)
    log = Path(f"{os.fspath(out)}.log")
    dataset = build(plan, log, progress)
    save_metadataset(dataset, out)
    log.unlink()
    return dataset


def task_record(data: DataSet) -> TaskRecord:
    """The row of a data set in the table of tasks."""
    return TaskRecord(
        name=data.name, base=data.base, source=data.source, licence=data.licence, n_train=len(data.y_train), n_valid=len(data.y_valid),
        n_test=len(data.y_test), n_features=data.x_train.shape[1], n_classes=data.n_classes, prior_entropy=data.prior_entropy,
        descriptor=np.asarray(data.descriptor, np.float32),
    )  # fmt: skip
