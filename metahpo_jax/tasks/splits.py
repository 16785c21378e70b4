"""Splits over tasks that never put one base data set on both sides."""

from collections.abc import Sequence

from metahpo_jax.errors import SplitError
from metahpo_jax.tasks.family import TaskFamily


def check_disjoint(train_names: Sequence[str], test_names: Sequence[str], family: TaskFamily) -> None:
    """Pass if no base data set stands on both sides.

    Raises:
        SplitError: naming the first base that does, and its name on each side.
        DataError: if the family does not know a name.
    """
    trained = {family.base(name): name for name in reversed(train_names)}
    for name in test_names:
        base = family.base(name)
        if base in trained:
            raise SplitError(
                f"the base data set '{base}' stands on both sides of the split, as '{trained[base]}' in training "
                f"and as '{name}' in test; remove one of them."
            )
