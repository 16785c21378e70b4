"""How much of a loss's variance each hyperparameter explains by itself: functional ANOVA of a random forest.

Hutter, Hoos and Leyton-Brown (2014), "An efficient approach for assessing hyperparameter importance". A tree is
constant on boxes, so its marginals and their variances over the uniform unit cube are exact sums over its leaves;
nothing is sampled. Shares are taken per tree, then averaged over the forest, as in the paper (algorithm 2).
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeRegressor

TREES = 64
LEAST_LEAF = 3  # observations: leaves of single ones would make interactions of noise


class Importance(NamedTuple):
    """Shares of variance; NaN where the loss is constant."""

    main: NDArray[np.float64]  # `[D]`, each hyperparameter's alone; what is left to 1 are their interactions
    explained: float  # out-of-bag R^2 of the forest: near 0 or below, it has learned nothing and shares are noise


def importance(x: NDArray[np.floating], y: NDArray[np.floating], *, trees: int = TREES, seed: int = 0) -> Importance:
    """Importance of the `D` coordinates `x [N, D]` of the unit cube for the losses `y [N]`.

    >>> grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 20)] * 2), axis=-1).reshape(-1, 2)
    >>> main, explained = importance(grid, 3 * grid[:, 0] + grid[:, 1])  # exact shares: 0.9 and 0.1
    >>> [round(float(share), 1) for share in main], explained > 0.9
    ([0.9, 0.1], True)
    """
    from sklearn.ensemble import RandomForestRegressor

    if np.ptp(y) == 0:
        return Importance(np.full(x.shape[1], np.nan), np.nan)
    forest = RandomForestRegressor(trees, min_samples_leaf=LEAST_LEAF, oob_score=True, random_state=seed)
    forest.fit(x, y)
    shares = np.array([tree_importance(tree) for tree in forest.estimators_])
    grown = np.isfinite(shares[:, 0])  # a tree that is a single leaf has no variance to share out
    main = shares[grown].mean(axis=0) if grown.any() else np.full(x.shape[1], np.nan)
    return Importance(main, float(forest.oob_score_))


def tree_importance(tree: "DecisionTreeRegressor") -> NDArray[np.float64]:
    """Share of the tree's variance over the unit cube that each coordinate explains by itself, `[D]`."""
    low, high, value = leaves(tree)
    sides = np.maximum(high - low, np.finfo(np.float64).tiny)
    volume = sides.prod(axis=1)
    mean = volume @ value
    variance = volume @ (value - mean) ** 2
    if variance <= 0:
        return np.full(low.shape[1], np.nan)
    # Along a coordinate, the marginal steps up where a leaf begins and down where it ends, by its value times the
    # volume that it has in all other coordinates.
    step = (volume * (value - mean))[:, None] / sides
    edge = np.concatenate([low, high])
    order = np.argsort(edge, axis=0)
    marginal = np.cumsum(np.take_along_axis(np.concatenate([step, -step]), order, axis=0), axis=0)[:-1]
    width = np.diff(np.take_along_axis(edge, order, axis=0), axis=0)
    return (width * marginal**2).sum(axis=0) / variance


def leaves(tree: "DecisionTreeRegressor") -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper corners `[L, D]` of the `L` boxes into which a tree cuts the unit cube, and their values `[L]`."""
    nodes = tree.tree_
    low, high = np.zeros((nodes.node_count, tree.n_features_in_)), np.ones((nodes.node_count, tree.n_features_in_))
    level = np.zeros(1, np.intp)  # all nodes of one depth at a time, from the root
    while len(level := level[nodes.children_left[level] >= 0]):
        left, right = nodes.children_left[level], nodes.children_right[level]
        low[left] = low[right] = low[level]
        high[left] = high[right] = high[level]
        feature, threshold = nodes.feature[level], nodes.threshold[level]
        high[left, feature] = low[right, feature] = threshold
        level = np.concatenate([left, right])
    is_leaf = nodes.children_left < 0
    return low[is_leaf], high[is_leaf], nodes.value[is_leaf, 0, 0]
