"""What a study hands out and what it keeps: trials to evaluate, the events of asking and telling, and the results."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from metahpo_jax.base import Status


@dataclass(frozen=True, eq=False)
class Trial:
    """What to evaluate next. A `number` that was seen before, at a higher `fidelity`, asks to resume that trial."""

    number: int
    config: dict[str, Any]
    fidelity: float  # in the objective's own unit (samples, epochs, 1)
    u: np.ndarray  # `[D]` float32: the configuration in the unit cube


@dataclass(frozen=True)
class TrialRecord:
    """What became of a trial at one fidelity."""

    number: int
    config: dict[str, Any]
    fidelity: float  # planned while pending, then reached
    loss: float  # NaN unless `status` is OK or STOPPED
    cost: float  # in the objective's own unit
    status: str  # the name of a `Status`
    reason: str  # why there is no loss; empty where there is one


@dataclass(frozen=True)
class Asked:
    """The event of a proposal; the `i`-th one of a study fills row `i` of its history."""

    trial: int
    u: tuple[float, ...]  # `[D]`, exact in float32
    fidelity: float


@dataclass(frozen=True)
class Told:
    """The event of a result for the row that it fills."""

    row: int
    loss: float
    cost: float
    fidelity: float
    status: Status
    reason: str


Event = Asked | Told
