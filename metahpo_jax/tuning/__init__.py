"""Tuning one's own objective: in a single call, or by asking and telling."""

from metahpo_jax.metalearners.prior import Prior as Prior
from metahpo_jax.tuning.minimize import Result as Result
from metahpo_jax.tuning.minimize import minimize as minimize
from metahpo_jax.tuning.records import Trial as Trial
from metahpo_jax.tuning.records import TrialRecord as TrialRecord
from metahpo_jax.tuning.study import Study as Study
