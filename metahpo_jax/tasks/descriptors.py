"""Descriptors of a data set: what can be known about it from its training rows before any network is trained.

General and statistical measures, the spectrum of a PCA, and landmarkers (Pfahringer, Bensusan and Giraud-Carrier,
2000): the cross-validated accuracies of four cheap learners. Validation and test rows are never touched. A measure that
is not defined is NaN.
"""

import numpy as np

from metahpo_jax.tasks.preprocess import Prepared

DESCRIPTORS: tuple[str, ...] = (
    "log_rows",  # natural logarithm of the number of training rows
    "log_features",  # natural logarithm of the number of encoded features
    "log_rows_per_feature",
    "n_classes",
    "class_entropy",  # of the training labels, divided by its maximum
    "imbalance",  # rows of the rarest over rows of the most frequent class
    "categorical_share",  # of the raw columns
    "missing_share",  # of the raw columns, those with a missing value
    "skewness_mean",  # over features, of the absolute skewness
    "skewness_max",
    "log_kurtosis_mean",  # log(1 + kurtosis) over features; the kurtosis of a normal distribution is 3
    "log_kurtosis_max",
    "correlation_mean",  # of the absolute correlation over pairs of features
    "pca_first",  # share of the variance on the first principal component
    "pca_95",  # components that hold 95 % of the variance, over features
    "landmark_1nn",  # accuracies, mean over folds
    "landmark_stump",
    "landmark_bayes",
    "landmark_linear",
)

LANDMARK_ROWS = 1000
LANDMARK_FOLDS = 5


def describe(data: Prepared) -> np.ndarray:
    """The descriptors of the training rows, float32 `[len(DESCRIPTORS)]` in their order, NaN where not defined."""
    x, y = data.x_train.astype(np.float64), data.y_train
    counts = np.bincount(y, minlength=data.n_classes)
    shares = counts[counts > 0] / len(y)
    skewness, kurtosis = _moments(x)
    values = {
        "log_rows": np.log(len(x)),
        "log_features": np.log(x.shape[1]),
        "log_rows_per_feature": np.log(len(x) / x.shape[1]),
        "n_classes": data.n_classes,
        "class_entropy": -np.sum(shares * np.log(shares)) / np.log(data.n_classes),
        "imbalance": counts.min() / counts.max(),
        "categorical_share": data.categorical_share,
        "missing_share": data.missing_share,
        "skewness_mean": skewness.mean(),
        "skewness_max": skewness.max(),
        "log_kurtosis_mean": np.log1p(kurtosis).mean(),
        "log_kurtosis_max": np.log1p(kurtosis).max(),
        **_second_order(x),
        **landmarks(x, y),
    }
    return np.array([values[name] for name in DESCRIPTORS], np.float32)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute skewness and kurtosis of each feature."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.abs(np.mean(z**3, axis=0)), np.mean(z**4, axis=0)


def _second_order(x: np.ndarray) -> dict[str, float]:
    """Correlation and PCA measures, from the correlation matrix."""
    correlation = np.atleast_2d(np.corrcoef(x, rowvar=False))
    pairs = np.abs(correlation[np.triu_indices(len(correlation), k=1)])
    spectrum = np.clip(np.linalg.eigvalsh(correlation)[::-1], 0.0, None)
    share = np.cumsum(spectrum) / spectrum.sum()
    return {
        "correlation_mean": float(pairs.mean()) if pairs.size else np.nan,  # a single feature has no pair
        "pca_first": float(share[0]),
        "pca_95": (int(np.searchsorted(share, 0.95)) + 1) / len(share),
    }


def landmarks(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Cross-validated accuracies of four cheap learners on at most `LANDMARK_ROWS` training rows."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    learners = {
        "landmark_1nn": KNeighborsClassifier(n_neighbors=1),
        "landmark_stump": DecisionTreeClassifier(max_depth=1, random_state=0),
        "landmark_bayes": GaussianNB(),
        # shrinkage keeps the covariance regular where one-hot columns are collinear or features outnumber rows
        "landmark_linear": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    }
    rows = np.random.RandomState(0).permutation(len(y))[:LANDMARK_ROWS]
    folds = min(LANDMARK_FOLDS, int(np.unique(y[rows], return_counts=True)[1].min()))
    if folds < 2:
        return dict.fromkeys(learners, np.nan)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    scores = {name: cross_val_score(learner, x[rows], y[rows], cv=split) for name, learner in learners.items()}
    return {name: float(score.mean()) for name, score in scores.items()}
