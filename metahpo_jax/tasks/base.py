"""Records of the task floor: what a learner sees of a data set, as a pytree of padded arrays.

A batch of tasks is the same pytree with a leading axis, so a learner is written for one task and the caller vmaps.
"""

from typing import NamedTuple

import jax
from flax.struct import PyTreeNode


class TaskShape(NamedTuple):
    """The padded sizes of a task; tasks of one shape share their compiled programs."""

    rows: int  # of the training split
    eval_rows: int  # of the validation and of the test split
    features: int
    classes: int


class Split(PyTreeNode):
    """Rows of a data set; those from `count` on are padding with x = 0 and y = 0."""

    x: jax.Array  # `[N, F]` float32
    y: jax.Array  # `[N]` int32
    count: jax.Array  # `[]` int32


class Task(PyTreeNode):
    """A classification problem with fixed splits.

    `prior_entropy` is the validation log-loss in nats of predicting the class frequencies of the training split: the
    loss of having learned nothing, and the cap of the `tabular` objective.
    """

    train: Split
    valid: Split
    test: Split
    class_mask: jax.Array  # `[K]` bool, True for the classes that exist
    n_features: jax.Array  # `[]` int32, without padding
    prior_entropy: jax.Array  # `[]` float32, nats
    descriptor: jax.Array  # `[m]` float32, in the order of its family's `descriptors`; 0 where missing
    descriptor_mask: jax.Array  # `[m]` bool
