"""What learns: pure functions whose hyperparameters are traced arrays."""

from metahpo_jax.learners.mlp import ACTIVATIONS as ACTIVATIONS
from metahpo_jax.learners.mlp import OPTIMISERS as OPTIMISERS
from metahpo_jax.learners.mlp import Capacity as Capacity
from metahpo_jax.learners.mlp import MLPConfig as MLPConfig
from metahpo_jax.learners.mlp import MLPState as MLPState
from metahpo_jax.learners.mlp import capacities as capacities
from metahpo_jax.learners.mlp import mlp as mlp
from metahpo_jax.learners.mlp import mlp_configs as mlp_configs
from metahpo_jax.learners.mlp import mlp_space as mlp_space
