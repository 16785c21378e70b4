"""What learns to tune: from a meta-dataset to theta, and from theta to an ordinary proposer."""

from metahpo_jax.metalearners.portfolio import greedy_picks as greedy_picks
from metahpo_jax.metalearners.portfolio import learn_portfolio as learn_portfolio
from metahpo_jax.metalearners.pretrained_gp import STEPS as STEPS
from metahpo_jax.metalearners.pretrained_gp import PretrainedGP as PretrainedGP
from metahpo_jax.metalearners.pretrained_gp import learn_prior as learn_prior
from metahpo_jax.metalearners.pretrained_gp import pretrain_gp as pretrain_gp
from metahpo_jax.metalearners.pretrained_gp import pretrained_gp as pretrained_gp
from metahpo_jax.metalearners.prior import Prior as Prior
