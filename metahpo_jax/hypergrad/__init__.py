"""Estimators of hypergradients: the gradient of a task's validation loss with respect to `theta`.

All stand behind `base.HyperGrad`. `init(key, theta, task) -> carry` opens an episode, the training of one task;
`step(key, theta, carry, task) -> (Estimate, carry)` spends compute on it and returns a gradient. What the carry holds
is what tells the estimators apart:

- full horizon (reverse, checkpointed, forward, implicit, full evolution strategies): one step is a whole episode, so
  the carry is `()` and `done` is always True;
- truncated and online ones (truncated reverse, forward with sharing, one-step, PES, NRES, ES-Single): the carry is
  the learner's state with its tangents or perturbations, a step unrolls one window of it, and `done` turns True with
  the window that ends the episode. Where it is True, and nowhere else, the slot of the batch takes a new task and
  calls `init` again.

An estimator is written for one task and never raises under `jit`: a diverged episode returns a loss or gradient that
is not finite, and the caller leaves that task out of its mean.
"""

from metahpo_jax.hypergrad.reverse import reverse as reverse
