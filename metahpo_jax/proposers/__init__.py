"""What to try next, given the history. Everything that searches is a Proposer."""

from metahpo_jax.proposers.bo import bo as bo
from metahpo_jax.proposers.bo import gp_bo as gp_bo
from metahpo_jax.proposers.factorial import grid as grid
from metahpo_jax.proposers.halving import resume_best as resume_best
from metahpo_jax.proposers.listed import PortfolioTheta as PortfolioTheta
from metahpo_jax.proposers.listed import portfolio as portfolio
from metahpo_jax.proposers.quasi import sobol as sobol
from metahpo_jax.proposers.sequence import then as then
from metahpo_jax.proposers.uniform import random as random
