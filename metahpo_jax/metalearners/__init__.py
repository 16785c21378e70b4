"""What learns to tune: from a meta-dataset to theta, and from theta to an ordinary proposer."""

from metahpo_jax.metalearners.descent import descent as descent
from metahpo_jax.metalearners.empirical_gaussian import count_gaussian as count_gaussian
from metahpo_jax.metalearners.empirical_gaussian import empirical_gaussian as empirical_gaussian
from metahpo_jax.metalearners.forest_portfolio import forest_portfolio as forest_portfolio
from metahpo_jax.metalearners.maml import Adapted as Adapted
from metahpo_jax.metalearners.maml import adapt as adapt
from metahpo_jax.metalearners.maml import configuration as configuration
from metahpo_jax.metalearners.maml import maml as maml
from metahpo_jax.metalearners.maml import reptile as reptile
from metahpo_jax.metalearners.maml import started_at as started_at
from metahpo_jax.metalearners.portfolio import greedy_picks as greedy_picks
from metahpo_jax.metalearners.portfolio import imagined_picks as imagined_picks
from metahpo_jax.metalearners.portfolio import learn_portfolio as learn_portfolio
from metahpo_jax.metalearners.portfolio import listed as listed
from metahpo_jax.metalearners.pretrained_gp import STEPS as STEPS
from metahpo_jax.metalearners.pretrained_gp import PretrainedGP as PretrainedGP
from metahpo_jax.metalearners.pretrained_gp import learn_prior as learn_prior
from metahpo_jax.metalearners.pretrained_gp import learn_theta as learn_theta
from metahpo_jax.metalearners.pretrained_gp import pretrain_gp as pretrain_gp
from metahpo_jax.metalearners.pretrained_gp import pretrained_gp as pretrained_gp
from metahpo_jax.metalearners.prior import Prior as Prior
from metahpo_jax.metalearners.transfer import warm_start as warm_start
from metahpo_jax.metalearners.transfer import warm_weights as warm_weights
