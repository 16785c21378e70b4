"""Building a meta-dataset: the same configurations really trained on every task, in resumable parts, by worker processes.

A unit is one capacity on one task shape: its program is compiled once and run for every task of that shape. Each (task, capacity)
that is done is a part on disk, so a build that is killed loses at most the one part that each worker was training.
"""

import hashlib
import io
import json
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from scipy.stats import qmc

from metahpo_jax.base import Status, run_key
from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.files import read_arrays, write_atomically
from metahpo_jax.learners import Capacity, mlp_configs, mlp_space
from metahpo_jax.metadata.schema import MetaDataset, TaskRecord
from metahpo_jax.population import CURVE_FIELDS, POINTS, R, train_population
from metahpo_jax.processes import single_threaded_workers
from metahpo_jax.tasks import DESCRIPTORS, DataSet, TaskFamily, TaskShape, bundled, shape_bucket, tabular, to_task

FAMILIES: dict[str, Callable[[], TaskFamily]] = {"tabular": tabular, "bundled": bundled}
RECIPE = 1  # raise it when the learner or the data sets change, so that older parts are refused
MAX_FEATURES = 64  # wider sets would need programs of their own for a handful of tasks


@dataclass(frozen=True)
class BuildPlan:
    """What is trained: enough to make every part again."""

    family: str
    tasks: tuple[str, ...]
    configurations: int
    seed: int

    @property
    def identity(self) -> str:
        """Text that parts of one build share and parts of another do not."""
        fields = [RECIPE, self.family, self.configurations, self.seed, mlp_space().hash, R, POINTS]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclass(frozen=True)
class Unit:
    """One compiled program's work: `rows` of the configurations on `tasks`, which share a shape."""

    plan: BuildPlan
    shape: TaskShape
    capacity: Capacity
    rows: tuple[int, ...]
    tasks: tuple[str, ...]
    parts: str  # directory


def configurations(count: int, seed: int) -> np.ndarray:
    """Scrambled Sobol points (Owen 1998) of `mlp_space()`, snapped, `[count, D]` float32."""
    space = mlp_space()
    points = qmc.Sobol(space.size, scramble=True, rng=np.random.default_rng(seed)).random(count)
    return np.asarray([space.encode(space.decode(p)) for p in points], np.float32)


def task_id(name: str) -> int:
    """The number that stands for a task in its run's key: of its name alone, so that adding tasks changes no other's runs."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def make_plan(family: str, count: int | None, configs: int, seed: int) -> BuildPlan:
    """The first `count` data sets of a family (all when None) that have at most `MAX_FEATURES` features.

    Raises:
      ConfigError: for an unknown family, or numbers below 1.
    """
    if family not in FAMILIES:
        raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    for name, value in (("tasks", 1 if count is None else count), ("configurations", configs)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}.")
    sets = FAMILIES[family]()
    fitting = [n for n in sets.names if sets.load(n).x_train.shape[1] <= MAX_FEATURES]
    return BuildPlan(family, tuple(fitting[:count]), configs, seed)


def units(plan: BuildPlan, parts: Path) -> list[Unit]:
    """All units, the costly ones first, so that workers end together."""
    _, capacities = mlp_configs(configurations(plan.configurations, plan.seed))
    sets = FAMILIES[plan.family]()
    shapes: dict[TaskShape, list[str]] = {}
    for name in plan.tasks:
        shapes.setdefault(shape_bucket(sets.load(name)), []).append(name)
    out = [
        Unit(
            plan, shape, capacity, tuple(i for i, c in enumerate(capacities) if c == capacity), tuple(names), str(parts)
        )
        for shape, names in shapes.items()
        for capacity in sorted(set(capacities))
    ]
    return sorted(out, key=lambda u: -len(u.tasks) * len(u.rows) * u.capacity.depth * u.capacity.width)


def part_path(unit: Unit, task: str) -> Path:
    """File of one task's part of a unit."""
    c = unit.capacity
    return Path(unit.parts) / f"{task}.d{c.depth}w{c.width}m{c.micro}.npz"


def run_unit(unit: Unit) -> int:
    """Trains what is missing of a unit; returns the number of trainings done. Runs in a worker process."""
    u = configurations(unit.plan.configurations, unit.plan.seed)[list(unit.rows)]
    sets, done = FAMILIES[unit.plan.family](), 0
    for name in unit.tasks:
        path = part_path(unit, name)
        if path.exists():
            continue
        began = time.perf_counter()
        key = run_key(jax.random.key(unit.plan.seed), task_id(name), 0)
        result = train_population(key, u, to_task(sets.load(name), unit.shape))
        provenance = {
            "task": name, "capacity": list(unit.capacity), "configurations": len(u), "seconds": round(time.perf_counter() - began, 3),
            "useful_flops": float(result.flops[:, -1].sum()), "executed_flops": float(result.executed),
        }  # fmt: skip
        arrays = {field: getattr(result.curve, field) for field in (*CURVE_FIELDS, "status")}
        content = io.BytesIO()
        np.savez(
            content, rows=np.asarray(unit.rows), diverged_at=result.diverged_at, flops=result.flops,
            identity=np.asarray(unit.plan.identity), provenance=np.asarray(json.dumps(provenance)), **arrays,
        )  # fmt: skip
        write_atomically(path, content.getvalue())
        done += len(u)
    return done


def build(plan: BuildPlan, parts: Path, *, workers: int = 2) -> Iterator[tuple[int, int]]:
    """Runs all units in `workers` processes of one thread each; yields (trainings on disk, trainings in all) as they grow.

    Stop it at any time and call it again: finished parts are kept.

    Raises:
      StoreError: when `parts` holds parts of another build.
    """
    stamp = parts / "build.json"
    if stamp.exists() and _identity_in(stamp) != plan.identity:
        raise StoreError(f"{parts} holds parts of another build (other settings); name another --out or delete it.")
    write_atomically(
        stamp, json.dumps({"identity": plan.identity, "machine": platform.processor() or platform.machine()}).encode()
    )
    todo = units(plan, parts)
    total = len(plan.tasks) * plan.configurations
    sizes = {part_path(u, t).name: len(u.rows) for u in todo for t in u.tasks}

    def finished() -> int:
        present = {entry.name for entry in os.scandir(parts)}
        return sum(size for name, size in sizes.items() if name in present)

    yield finished(), total
    with single_threaded_workers(workers) as pool:
        running = {pool.submit(run_unit, unit) for unit in todo}
        while running:
            ready, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ready:
                future.result()
            yield finished(), total


def _identity_in(stamp: Path) -> str | None:
    try:
        return json.loads(stamp.read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def assemble(plan: BuildPlan, parts: Path) -> MetaDataset:
    """The meta-dataset of a finished build.

    Raises:
      StoreError: naming the part that is missing or belongs to another build.
    """
    u = configurations(plan.configurations, plan.seed)
    shape = (len(plan.tasks), len(u), len(POINTS))
    curves = {field: np.full(shape, np.nan, np.float32) for field in CURVE_FIELDS}
    flops = np.zeros(shape, np.float64)
    status = np.zeros(shape[:2], np.int8)
    diverged_at = np.full(shape[:2], np.nan, np.float32)
    provenance = []
    for unit in units(plan, parts):
        for name in unit.tasks:
            path = part_path(unit, name)
            if not path.exists():
                raise StoreError(f"{path} is missing: the build is not finished; run the same command again.")
            with read_arrays(path) as part:
                if str(part["identity"]) != plan.identity:
                    raise StoreError(f"{path} belongs to another build; delete it and run the same command again.")
                t, rows = plan.tasks.index(name), part["rows"]
                for field in CURVE_FIELDS:
                    curves[field][t, rows] = part[field]
                flops[t, rows], diverged_at[t, rows] = part["flops"], part["diverged_at"]
                status[t, rows] = np.where(part["status"][:, -1] == Status.OK, int(Status.OK), int(Status.DIVERGED))
                provenance.append(json.loads(str(part["provenance"])))
    sets = FAMILIES[plan.family]()
    versions = {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()}
    return MetaDataset(
        name=plan.family,
        space=mlp_space(),
        tasks=tuple(task_record(sets.load(name)) for name in plan.tasks),
        descriptor_names=DESCRIPTORS,
        u=u,
        fidelity=np.asarray(POINTS, np.float64),
        unit="samples",
        flops=flops,
        status=status,
        diverged_at=diverged_at,
        provenance=({"versions": versions, "cores": os.cpu_count(), "system": platform.system()}, *provenance),
        **curves,
    )


def task_record(data: DataSet) -> TaskRecord:
    """The row of a data set in the table of tasks."""
    return TaskRecord(
        name=data.name, base=data.base, source=data.source, licence=data.licence, n_train=len(data.y_train), n_valid=len(data.y_valid),
        n_test=len(data.y_test), n_features=data.x_train.shape[1], n_classes=data.n_classes, prior_entropy=data.prior_entropy,
        descriptor=np.asarray(data.descriptor, np.float32),
    )  # fmt: skip
