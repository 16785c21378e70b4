"""Splits over tasks that never put one base data set on both sides."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from metahpo_jax.errors import SplitError
from metahpo_jax.tasks.family import TaskFamily


class Fold(NamedTuple):
    """One fold: the base that is held out, the names to meta-train on, and the names to test on."""

    held_out_base: str
    train_names: tuple[str, ...]
    test_names: tuple[str, ...]


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


def leave_one_base_out(family: TaskFamily, names: Sequence[str] | None = None) -> Iterator[Fold]:
    """Hold out every base among `names` (default: all of the family) in turn, in the order of first appearance.

    Raises:
        SplitError: if the names share a single base, so that nothing would be left to train on.
    """
    names = family.names if names is None else tuple(names)
    bases = {name: family.base(name) for name in names}
    if len(set(bases.values())) < 2:
        raise SplitError(
            f"leave-one-base-out needs at least 2 base data sets, but {len(set(bases.values()))} were given; add names."
        )
    for base in dict.fromkeys(bases.values()):
        train = tuple(name for name in names if bases[name] != base)
        test = tuple(name for name in names if bases[name] == base)
        yield Fold(base, train, test)
