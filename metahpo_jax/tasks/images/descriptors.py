"""Descriptors of an image task: what can be known from its training rows before any network is trained.

Intensities are those before standardisation, in [0, 1]. The landmarkers are those of `tasks/descriptors.py`.
"""

import numpy as np

from metahpo_jax.tasks.descriptors import landmarks

IMAGE_DESCRIPTORS: tuple[str, ...] = (
    "log_rows",  # natural logarithm of the number of training rows
    "n_classes",
    "class_entropy",  # of the training labels, divided by its maximum
    "imbalance",  # rows of the rarest over rows of the most frequent class
    "side",  # pixels
    "intensity_mean",
    "intensity_std",
    "intensity_skew",
    "contrast",  # standard deviation within an image, mean over images
    "edge_energy",  # mean squared difference of neighbours over twice the variance: 1 for white noise, 0 if flat
    "high_frequency",  # share of the spectral energy above half the Nyquist frequency, without the mean
    "class_separation",  # sum over pixels of the variance between class means over that within classes
    "pca_first",  # share of the variance on the first principal component
    "pca_95",  # components that hold 95 % of the variance, over pixels
    "landmark_1nn",  # accuracies, mean over folds
    "landmark_stump",
    "landmark_bayes",
    "landmark_linear",
)


def describe_images(images: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Descriptors float32 `[len(IMAGE_DESCRIPTORS)]` of training images uint8 `[n, side, side]` and labels int32 `[n]`."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: threads would cost time, and change the last digits
        values = _measure(images.astype(np.float64) / 255, labels, n_classes)
    return np.array([values[name] for name in IMAGE_DESCRIPTORS], np.float32)


def _measure(x: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, float]:
    flat = x.reshape(len(x), -1)
    mean, deviation = x.mean(), x.std()
    counts = np.bincount(labels, minlength=n_classes)
    shares = counts[counts > 0] / len(labels)
    steps = [np.mean(np.diff(x, axis=axis) ** 2) for axis in (1, 2)]
    return {
        "log_rows": np.log(len(x)),
        "n_classes": n_classes,
        "class_entropy": -np.sum(shares * np.log(shares)) / np.log(n_classes),
        "imbalance": counts.min() / counts.max(),
        "side": x.shape[1],
        "intensity_mean": mean,
        "intensity_std": deviation,
        "intensity_skew": np.mean(((x - mean) / deviation) ** 3),
        "contrast": x.std(axis=(1, 2)).mean(),
        "edge_energy": np.mean(steps) / (2 * deviation**2),
        "high_frequency": _high_frequency(x),
        "class_separation": _class_separation(flat, labels),
        **_spectrum(flat),
        **landmarks(flat, labels),
    }


def _high_frequency(x: np.ndarray) -> float:
    """Of the two-dimensional power spectrum, the share where either frequency is above half of Nyquist's."""
    power = np.mean(np.abs(np.fft.fft2(x)) ** 2, axis=0)
    power[0, 0] = 0.0
    frequency = np.abs(np.fft.fftfreq(x.shape[1]))
    return float(power[np.maximum.outer(frequency, frequency) > 0.25].sum() / power.sum())


def _class_separation(flat: np.ndarray, labels: np.ndarray) -> float:
    centre = flat.mean(axis=0)
    between = within = 0.0
    for label in np.unique(labels):
        members = flat[labels == label]
        between += len(members) * np.sum((members.mean(axis=0) - centre) ** 2)
        within += len(members) * np.sum(members.var(axis=0))
    return between / within


def _spectrum(flat: np.ndarray) -> dict[str, float]:
    """PCA of the covariance: pixels share a unit, so their variances are left as they are."""
    variances = np.clip(np.linalg.eigvalsh(np.cov(flat, rowvar=False))[::-1], 0.0, None)
    share = np.cumsum(variances) / variances.sum()
    return {"pca_first": float(share[0]), "pca_95": (int(np.searchsorted(share, 0.95)) + 1) / len(share)}
