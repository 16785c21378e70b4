"""What came of a population: arrays over tasks, seeds and configurations, filled record by record."""

from typing import Any, NamedTuple

import jax
import numpy as np

from metahpo_jax.base import Array, Curve, Status
from metahpo_jax.population.log import Record
from metahpo_jax.population.plan import Group, Run

CURVE_FIELDS = ("valid_loss", "valid_accuracy", "test_accuracy", "train_loss", "gradient_norm", "learning_rate")


class Population(NamedTuple):
    """What came of `T` tasks x `S` seeds x `N` configurations (NumPy)."""

    curve: Curve  # fields `[T, S, N, P]`; NaN and DIVERGED once diverged, NaN and STOPPED where a rung ended the run
    diverged_at: np.ndarray  # `[T, S, N]` samples, NaN where it did not
    flops: np.ndarray  # `[T, S, N, P]` useful (unpadded) FLOPs of training up to each point, NaN after a rung
    executed: float  # FLOPs of the plan, padding included
    programs: int  # that the plan needs: one per task shape and capacity
    seconds: float  # of compiling and training, those of earlier calls that the log remembers included


def record_of(group: Group, runs: list[Run], result: tuple[Curve, Array], seconds: float) -> Record:
    """What a call found, as named arrays: fields `[runs, C, P]`; `seconds` went by since the last one."""
    curve, stopped = jax.device_get(result)

    def flat(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, *x.shape[2:])[: len(runs)]

    micro_steps = flat(stopped)
    return {
        "places": np.asarray([(run.task, run.seed, run.real) for run in runs], np.int64),
        "lanes": np.asarray([run.lanes for run in runs], np.int64),
        "diverged_at": np.where(micro_steps < 0, np.nan, micro_steps.astype(np.float64) * group.capacity.micro),
        "seconds": np.asarray(seconds),
        **{name: flat(getattr(curve, name)) for name in (*CURVE_FIELDS, "status")},
    }


def runs_in(record: Record) -> list[Run]:
    """The runs that a record holds."""
    return [
        Run(int(task), int(seed), tuple(int(i) for i in lanes), int(real))
        for (task, seed, real), lanes in zip(record["places"], record["lanes"], strict=True)
    ]


class Gathered:
    """Arrays `[T, S, N, ...]` that records fill."""

    def __init__(self, shape: tuple[int, int, int, int]):
        """Empty arrays of `T, S, N, P`."""
        self.fields: Record = {name: np.full(shape, np.nan, np.float32) for name in CURVE_FIELDS}
        self.fields |= {"status": np.zeros(shape, np.int32), "diverged_at": np.full(shape[:-1], np.nan)}
        self.seconds = 0.0

    def add(self, record: Record) -> None:
        """Puts a record in its place."""
        self.seconds += float(record["seconds"])
        for i, run in enumerate(runs_in(record)):
            rows = list(run.lanes[: run.real])
            for name, values in self.fields.items():
                values[run.task, run.seed, rows] = record[name][i, : run.real]

    def population(self, per_sample: np.ndarray, points: tuple[int, ...], executed: float, programs: int) -> Population:
        """The whole, with useful FLOPs `per_sample [T, N]`.

        A run counts as diverged from the first point at which it has no finite validation loss, whatever its weights did.
        """
        fields: dict[str, Any] = dict(self.fields)
        status, ends = fields["status"], np.asarray(points, np.float64)
        bad = np.logical_or.accumulate(status == Status.DIVERGED, axis=-1)
        stopped = (status == Status.STOPPED) & ~bad
        for name in CURVE_FIELDS:
            fields[name] = np.where(bad | stopped, np.float32(np.nan), fields[name])
        fields["status"] = np.where(bad, np.int32(Status.DIVERGED), status)
        first_bad = np.where(bad.any(-1), ends[bad.argmax(-1)], np.nan)
        diverged_at = np.fmin(fields.pop("diverged_at"), first_bad)
        flops = np.broadcast_to(per_sample[:, None, :, None] * ends, status.shape)
        return Population(
            Curve(**fields), diverged_at, np.where(stopped, np.nan, flops), executed, programs, self.seconds
        )
