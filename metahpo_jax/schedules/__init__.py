"""Learning-rate schedules whose shape is a traced value."""

from metahpo_jax.schedules.parametric import SCHEDULES as SCHEDULES
from metahpo_jax.schedules.parametric import WARMUP as WARMUP
from metahpo_jax.schedules.parametric import as_optax as as_optax
from metahpo_jax.schedules.parametric import factor as factor
