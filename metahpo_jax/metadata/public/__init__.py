"""Public tables as archives: every reader takes the folder of `--data` and returns what was recorded, in raw units.

Nothing is downloaded and nothing is redistributed: a missing folder is a sentence that says what to get and where to put it.
"""

from metahpo_jax.metadata.public import hpob as hpob
from metahpo_jax.metadata.public import lcbench as lcbench
from metahpo_jax.metadata.public import openml100 as openml100
from metahpo_jax.metadata.public import svm as svm
from metahpo_jax.metadata.public import taskset as taskset
