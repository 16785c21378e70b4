"""Many trainings as one program: configurations of one task, grouped by capacity and trained in chunks of lanes."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array, Curve, Key, Learner, Status, training_keys
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners.mlp import Capacity, MLPConfig, flops_per_sample, mlp, mlp_configs
from metahpo_jax.tasks.base import Task, TaskShape

R = 62_208  # samples of a full run: 2^8 x 3^5, so that every rung of Hyperband with eta 3 is a whole number of batches
RUNGS = (1 / 81, 1 / 54, 1 / 27, 1 / 18, 1 / 9, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 1)
POINTS = tuple(round(R * share) for share in RUNGS)

CURVE_FIELDS = ("valid_loss", "valid_accuracy", "test_accuracy", "train_loss", "gradient_norm", "learning_rate")


class Chunk(NamedTuple):
    """Lanes of one compiled call. `lanes` index the population; a repeated last index pads the chunk."""

    capacity: Capacity
    lanes: tuple[int, ...]
    real: int  # how many of the lanes are not padding


class Population(NamedTuple):
    """What came of `N` configurations of one task (NumPy)."""

    curve: Curve  # fields `[N, P]`; NaN and DIVERGED once diverged
    diverged_at: np.ndarray  # `[N]` samples, NaN where it did not
    flops: np.ndarray  # `[N, P]` useful (unpadded) FLOPs of training up to each point
    executed: float  # FLOPs that were really spent, padding included


def chunk_width(capacity: Capacity, coarse: bool = False) -> int:
    """Lanes per call: more for small networks, where each step is mostly overhead, fewer where padding would cost.

    `coarse` stands for a handful of configurations, which would leave wide chunks half empty.
    """
    wide = 8 if capacity.width <= 32 else 4
    return wide // 2 if coarse else wide


def plan(capacities: list[Capacity], accumulate: Array, coarse: bool = False) -> list[Chunk]:
    """Chunks over a population, each of one capacity, sorted by batch size so that lanes of a chunk update together."""
    chunks = []
    for capacity in sorted(set(capacities)):
        members = [i for i, c in enumerate(capacities) if c == capacity]
        members.sort(key=lambda i: int(accumulate[i]))
        width = chunk_width(capacity, coarse)
        for low in range(0, len(members), width):
            lanes = members[low : low + width]
            chunks.append(Chunk(capacity, tuple(lanes + [lanes[-1]] * (width - len(lanes))), len(lanes)))
    return chunks


@functools.cache
def learner_for(capacity: Capacity, horizon: int = R, points: tuple[int, ...] = POINTS) -> Learner:
    """The learner of a capacity, one object per setting, so that its programs are compiled once."""
    return mlp(capacity, horizon=horizon, points=points)


@functools.cache
def program(capacity: Capacity, horizon: int = R, points: tuple[int, ...] = POINTS) -> Callable:
    """Compiled `(key, h [C], task) -> (Curve [C, P], diverged_at [C])` of whole runs."""
    learner = learner_for(capacity, horizon, points)

    @jax.jit
    def run(key: Key, h: MLPConfig, task: Task) -> tuple[Curve, Array]:
        init_key, train_key = training_keys(key)
        states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
        states, curve = learner.train(train_key, h, states, task, 0, horizon)
        return curve, states.diverged_at * capacity.micro

    return run


def useful_flops(config: MLPConfig, depths: list[int], n_features: int, n_classes: int) -> np.ndarray:
    """FLOPs `[N]` of one training sample of each configuration, without any padding."""
    widths = np.asarray(config.width)
    return np.asarray(
        [flops_per_sample([n_features, *[int(w)] * d, n_classes]) for w, d in zip(widths, depths, strict=True)]
    )


def executed_flops(chunks: list[Chunk], shape: TaskShape) -> float:
    """FLOPs per sample that a plan executes, padded lanes, widths, features and classes included."""
    return sum(
        len(c.lanes) * flops_per_sample([shape.features, *[c.capacity.width] * c.capacity.depth, shape.classes])
        for c in chunks
    )


def shape_of(task: Task) -> TaskShape:
    """The padded shape that a task has."""
    rows, features = task.train.x.shape[-2:]
    return TaskShape(rows, task.valid.x.shape[-2], features, task.class_mask.shape[-1])


def train_chunks(
    key: Key, u: Array | np.ndarray, task: Task, *, horizon: int = R, points: tuple[int, ...] = POINTS, workers: int = 1,
    coarse: bool = False,
) -> Iterator[tuple[Chunk, Curve, np.ndarray]]:  # fmt: skip
    """Trains the configurations `u [N, D]` of `mlp_space()` on one task and yields each chunk as it is done.

    `workers` threads run that many chunks at once. With `coarse`, few capacities serve all (more padding, fewer programs to
    compile): right for a handful of trials on a machine that has compiled nothing yet.
    """
    config, capacities = mlp_configs(np.asarray(u))
    if coarse:
        config, capacities = coarsen(config, capacities)

    def run(chunk: Chunk) -> tuple[Chunk, Curve, np.ndarray]:
        h = jax.tree.map(lambda x: jnp.asarray(x[list(chunk.lanes)]), config)
        curve, diverged_at = program(chunk.capacity, horizon, points)(key, h, task)
        keep = slice(0, chunk.real)
        return chunk, jax.tree.map(lambda x: np.asarray(x)[keep], curve), np.asarray(diverged_at)[keep]

    chunks = plan(capacities, config.accumulate, coarse)
    if workers == 1:
        yield from map(run, chunks)
    else:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(run, chunks)


def coarsen(config: MLPConfig, capacities: list[Capacity]) -> tuple[MLPConfig, list[Capacity]]:
    """The same networks, with other draws of initial weights and dropout, in at most 12 capacities.

    Widths are 32 and 128, micro-batches 16 and 64.
    """
    micro = np.asarray([64 if c.micro == 64 else 16 for c in capacities], np.int32)
    old = np.asarray([c.micro for c in capacities], np.int32)
    coarse = [Capacity(c.depth, 32 if c.width <= 32 else 128, int(m)) for c, m in zip(capacities, micro, strict=True)]
    return config.replace(accumulate=config.accumulate * (old // micro)), coarse


def train_population(
    key: Key, u: Array | np.ndarray, task: Task, *, horizon: int = R, points: tuple[int, ...] = POINTS, workers: int = 1,
    coarse: bool = False, on_chunk: Callable[[int], None] | None = None,
) -> Population:  # fmt: skip
    """Trains the configurations `u [N, D]` of `mlp_space()` on one task to the end.

    Args:
      key: of the run, `run_key(key, task, seed)`. Minibatches follow from it alone; initial weights and dropout noise also
        from the capacity and the task's padded shape, whose size their arrays have.
      on_chunk: called with the number of finished configurations, for a progress bar.

    Raises:
      ConfigError: when `u` is not `[N, D]` with N >= 1.
    """
    u = np.asarray(u, np.float32)
    if u.ndim != 2 or not len(u):
        raise ConfigError(f"train_population: u must have shape [N, D] with at least one row, got {u.shape}.")
    n, p = len(u), len(points)
    fields: dict[str, Any] = {name: np.full((n, p), np.nan, np.float32) for name in CURVE_FIELDS}
    curve = Curve(**fields, status=np.zeros((n, p), np.int32))  # pyright: ignore[reportArgumentType]  NumPy, filled below
    diverged_at = np.full(n, np.nan)
    done = 0
    chunks = []
    for chunk, part, stopped in train_chunks(
        key, u, task, horizon=horizon, points=points, workers=workers, coarse=coarse
    ):
        rows = list(chunk.lanes[: chunk.real])
        for name in (*CURVE_FIELDS, "status"):
            getattr(curve, name)[rows] = getattr(part, name)
        diverged_at[rows] = np.where(stopped < 0, np.nan, stopped)
        chunks.append(chunk)
        done += chunk.real
        if on_chunk is not None:
            on_chunk(done)
    # A run counts as diverged from the first point at which it has no finite validation loss, whatever its weights did.
    bad = np.logical_or.accumulate(curve.status != Status.OK, axis=1)
    for name in CURVE_FIELDS:
        getattr(curve, name)[bad] = np.nan
    curve.status[bad] = int(Status.DIVERGED)
    first_bad = np.where(bad.any(1), np.asarray(points, np.float64)[bad.argmax(1)], np.nan)
    diverged_at = np.fmin(diverged_at, first_bad)
    config, capacities = mlp_configs(u)
    per_sample = useful_flops(config, [c.depth for c in capacities], int(task.n_features), int(task.class_mask.sum()))
    return Population(
        curve=curve,
        diverged_at=diverged_at,
        flops=per_sample[:, None] * np.asarray(points, np.float64)[None, :],
        executed=executed_flops(chunks, shape_of(task)) * horizon,
    )
