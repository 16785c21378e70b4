"""Every estimator of the hypergradient on one problem: how far off, how noisy, how large and how long.

Bias is against the mean over the episodes of the exact gradient of the loss at the end. Of estimators that go window by window it is the
estimate of the last window, which is about that loss too: evolution strategies estimate the gradient of its smoothed form.
"""

DATA_SET = "wine"  # of scikit-learn's own; a tanh network on minibatches
HIDDEN, BATCH = 16, 16
FIXED = {"momentum": 0.9}
LEARNED = {"learning_rate": 0.01, "weight_decay": 1e-3, "data_noise": 0.2}  # where the gradient is taken
HORIZONS, QUICK_HORIZONS = (5, 50, 500, 5_000, 10_000), (5, 50, 500)
EPISODES, QUICK_EPISODES = 16, 8  # keys over which bias and variance are taken
WINDOWS = 5  # of those that go window by window
SIGMA, PAIRS = 0.1, 8
GAMMA = 0.95
SEED = 0
EXACT = 1e-3  # relative deviation, in float32, up to which exact estimators agree
