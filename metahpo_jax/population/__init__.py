"""Many trainings as few compiled programs."""

from metahpo_jax.population.devices import configure as configure
from metahpo_jax.population.engine import POINTS as POINTS
from metahpo_jax.population.engine import Progress as Progress
from metahpo_jax.population.engine import R as R
from metahpo_jax.population.engine import train_population as train_population
from metahpo_jax.population.log import ResultLog as ResultLog
from metahpo_jax.population.programs import Rung as Rung
from metahpo_jax.population.records import CURVE_FIELDS as CURVE_FIELDS
from metahpo_jax.population.records import Population as Population
