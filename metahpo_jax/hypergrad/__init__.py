"""Estimators of hypergradients: the gradient of a task's validation loss with respect to `theta`.

All stand behind `base.HyperGrad` and are made of an `Inner`, the training of one task. `init(key, theta, task) -> carry` opens an
episode; `step(key, theta, carry, task) -> (Estimate, carry)` spends compute on it and returns a gradient. What the carry
holds is what tells the estimators apart:

- full horizon (`reverse`, `checkpointed`, `forward`, `forward_sharing`, `implicit`, `full_es`): one step is a whole episode, so the carry
  is `()` and `done` is always True;
- on the way (`truncated`, `one_step`, `hyperdistill`, `pes`, `nres`, `es_single`): the carry is the state of the training, with
  perturbations where there are any; a step goes through one window of it, and `done` turns True with the window that ends the
  episode. Where it is True, and nowhere else, the slot of the batch takes a new task and calls `init` again.

An estimator is written for one task and never raises under `jit`: a diverged episode returns a loss or gradient that is not finite, and
the caller leaves that task out of its mean.
"""

from metahpo_jax.hypergrad.auto import Chosen as Chosen
from metahpo_jax.hypergrad.auto import Estimator as Estimator
from metahpo_jax.hypergrad.auto import estimator_of as estimator_of
from metahpo_jax.hypergrad.distill import hyperdistill as hyperdistill
from metahpo_jax.hypergrad.evolution import es_single as es_single
from metahpo_jax.hypergrad.evolution import full_es as full_es
from metahpo_jax.hypergrad.evolution import nres as nres
from metahpo_jax.hypergrad.evolution import pes as pes
from metahpo_jax.hypergrad.evolution import shared_noise as shared_noise
from metahpo_jax.hypergrad.forward import forward as forward
from metahpo_jax.hypergrad.forward import forward_sharing as forward_sharing
from metahpo_jax.hypergrad.gradient_descent import SPACE as SPACE
from metahpo_jax.hypergrad.gradient_descent import Problem as Problem
from metahpo_jax.hypergrad.gradient_descent import Theta as Theta
from metahpo_jax.hypergrad.gradient_descent import gradient_descent as gradient_descent
from metahpo_jax.hypergrad.growth import growth as growth
from metahpo_jax.hypergrad.growth import with_growth as with_growth
from metahpo_jax.hypergrad.implicit import implicit as implicit
from metahpo_jax.hypergrad.inner import Inner as Inner
from metahpo_jax.hypergrad.inner import advance as advance
from metahpo_jax.hypergrad.inner import as_inner as as_inner
from metahpo_jax.hypergrad.inner import episode as episode
from metahpo_jax.hypergrad.networks import classifier as classifier
from metahpo_jax.hypergrad.networks import regressor as regressor
from metahpo_jax.hypergrad.networks import relative as relative
from metahpo_jax.hypergrad.reverse import checkpointed as checkpointed
from metahpo_jax.hypergrad.reverse import reverse as reverse
from metahpo_jax.hypergrad.truncated import one_step as one_step
from metahpo_jax.hypergrad.truncated import truncated as truncated
