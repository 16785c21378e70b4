"""What meta-learning hands to a tuner: a name, the space it was learned on, and how to make a proposer of it."""

from collections.abc import Callable
from dataclasses import dataclass

from metahpo_jax.base import Proposer
from metahpo_jax.spaces import Space


@dataclass(frozen=True)
class Prior:
    """A learned theta, for `space` and no other: its arrays mean nothing where the coordinates differ."""

    name: str
    space: Space
    make: Callable[[Space], Proposer]

    def proposer(self, space: Space) -> Proposer:
        """The learned proposer for a new task over `space`.

        Raises:
          SpaceError: when the prior was made for another space, with the differences.
        """
        space.require_same(self.space, f"prior {self.name!r}")
        return self.make(space)
