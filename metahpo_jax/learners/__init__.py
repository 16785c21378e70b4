"""What learns: pure functions whose hyperparameters are traced arrays."""

from metahpo_jax.learners.activations import ACTIVATIONS as ACTIVATIONS
from metahpo_jax.learners.cnn import cnn as cnn
from metahpo_jax.learners.cnn import cnn_family as cnn_family
from metahpo_jax.learners.cnn import cnn_space as cnn_space
from metahpo_jax.learners.family import LearnerFamily as LearnerFamily
from metahpo_jax.learners.logistic import logistic as logistic
from metahpo_jax.learners.logistic import logistic_family as logistic_family
from metahpo_jax.learners.logistic import logistic_space as logistic_space
from metahpo_jax.learners.mlp import Capacity as Capacity
from metahpo_jax.learners.mlp import MLPConfig as MLPConfig
from metahpo_jax.learners.mlp import capacities as capacities
from metahpo_jax.learners.mlp import mlp as mlp
from metahpo_jax.learners.mlp import mlp_configs as mlp_configs
from metahpo_jax.learners.mlp import mlp_family as mlp_family
from metahpo_jax.learners.mlp import mlp_space as mlp_space
from metahpo_jax.learners.optimisers import OPTIMISERS as OPTIMISERS
from metahpo_jax.learners.supervised import TrainState as TrainState
