"""The draw: which classes, rows, resolution and corruptions make a task of a base set.

A recipe is seeded by its own name, that is by (base, index), and by nothing else: a task stays what it is when other bases
or further tasks come and go.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from metahpo_jax.tasks.preprocess import stable_seed

MAX_CLASSES = 10
SIDES = (8, 12, 16)
ROWS = (100, 2000)  # of training, log-uniform
ROWS_PER_CLASS = 20  # at least, if classes are balanced
IMBALANCED_SHARE = 0.3
IMBALANCE = (0.2, 0.6)
CORRUPTIONS_SHARE = (0.35, 0.4, 0.25)  # of none, one and two
STRENGTHS: dict[str, tuple[float, float]] = {
    "rotation": (10.0, 60.0),  # degrees, the largest angle
    "blur": (0.04, 0.12),  # standard deviation over the side
    "contrast": (0.1, 0.4),  # the largest loss
    "noise": (0.04, 0.24),  # standard deviation over the range
}


@dataclass(frozen=True)
class Corruption:
    """One kind of damage, a key of `STRENGTHS`, and how strong it is."""

    kind: str
    strength: float


@dataclass(frozen=True)
class Recipe:
    """How a task is made of a base set; `rows` is a goal, of which less is taken where the base runs out."""

    base: str
    index: int
    classes: tuple[int, ...]  # of the base, in the order of the task's labels, the rarest last
    rows: int  # of training
    side: int  # pixels
    corruptions: tuple[Corruption, ...]
    imbalance: float  # rows of the rarest over rows of the most frequent class; between them geometric

    @property
    def name(self) -> str:
        """Name of the task."""
        return f"{self.base}_{self.index:02d}"

    @property
    def text(self) -> str:
        """The recipe in words, without its base."""
        damage = ", ".join(f"{c.kind} {c.strength:g}" for c in self.corruptions) or "no corruption"
        return (
            f"classes {' '.join(map(str, self.classes))}; at most {self.rows} rows; {self.side} x {self.side} pixels; "
            f"{damage}; imbalance {self.imbalance:g}"
        )

    @property
    def hash(self) -> str:
        """SHA-256 of name and text."""
        return hashlib.sha256(f"{self.name}: {self.text}".encode()).hexdigest()


def draw(base: str, index: int, n_classes: int, sides: tuple[int, ...]) -> Recipe:
    """The recipe of one task of a base that has `n_classes` classes and may be resized to `sides`."""
    # RandomState for the reason given in tasks/preprocess.py: its stream is frozen
    random = np.random.RandomState(stable_seed(f"image task {base} {index}"))
    count = random.randint(2, min(MAX_CLASSES, n_classes) + 1)
    classes = tuple(int(c) for c in random.permutation(n_classes)[:count])
    rows = np.exp(random.uniform(*np.log(ROWS)))
    side = sides[random.randint(len(sides))]
    kinds = random.permutation(sorted(STRENGTHS))[: random.choice(3, p=CORRUPTIONS_SHARE)]
    strengths = {str(kind): _short(random.uniform(*STRENGTHS[kind])) for kind in kinds}
    skewed, imbalance = random.uniform() < IMBALANCED_SHARE, random.uniform(*IMBALANCE)
    return Recipe(
        base=base,
        index=index,
        classes=classes,
        rows=max(round(rows), ROWS_PER_CLASS * count),
        side=side,
        corruptions=tuple(Corruption(kind, strengths[kind]) for kind in STRENGTHS if kind in strengths),
        imbalance=_short(imbalance) if skewed else 1.0,
    )


def _short(value: float) -> float:
    """Three digits, so that text and number agree."""
    return float(f"{value:.3g}")
