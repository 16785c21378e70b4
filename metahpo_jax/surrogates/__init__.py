"""Models of the loss over a search space, behind one protocol (`metahpo_jax.base.Surrogate`)."""

from metahpo_jax.surrogates.exact import Model as Model
from metahpo_jax.surrogates.exact import Parameters as Parameters
from metahpo_jax.surrogates.exact import Posterior as Posterior
from metahpo_jax.surrogates.gp import gp as gp
from metahpo_jax.surrogates.kernels import matern52 as matern52
from metahpo_jax.surrogates.kernels import squared_exponential as squared_exponential
