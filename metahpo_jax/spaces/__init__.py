"""Search spaces: named, typed hyperparameters with a codec to and from the unit cube."""

from metahpo_jax.spaces.codec import Kind as Kind
from metahpo_jax.spaces.codec import activity as activity
from metahpo_jax.spaces.codec import snap as snap
from metahpo_jax.spaces.codec import values as values
from metahpo_jax.spaces.convert import from_configspace as from_configspace
from metahpo_jax.spaces.convert import from_optuna as from_optuna
from metahpo_jax.spaces.convert import to_configspace as to_configspace
from metahpo_jax.spaces.convert import to_optuna as to_optuna
from metahpo_jax.spaces.dimensions import Choice as Choice
from metahpo_jax.spaces.dimensions import Dimension as Dimension
from metahpo_jax.spaces.dimensions import Float as Float
from metahpo_jax.spaces.dimensions import Int as Int
from metahpo_jax.spaces.space import Space as Space
from metahpo_jax.spaces.unconstrained import Free as Free
