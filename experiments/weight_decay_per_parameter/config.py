"""A weight decay for every weight of a softmax regression on MNIST-5k (Lorraine, Vicol and Duvenaud 2020, section 5.1, made small)."""

TRAIN, VALID, TEST = 1000, 1000, 3000  # images
STEPS, RATE, MOMENTUM = 500, 0.05, 0.9  # of gradient descent on all training images, from zero in every meta-step
META_STEPS, META_RATE = 100, 0.1  # Adam on the logarithm of each decay, from the best one for all on
MOST = 2.0  # of these logarithms: beyond, gradient descent at this rate diverges
# Logarithms of one decay for all, chosen on the validation images.
GRID = [-9.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0]
SOLVERS = {
    "cg": {"solver": "cg", "terms": 20, "damping": 1e-3},
    "neumann": {"solver": "neumann", "terms": 20, "rate": 0.05},
}
SEEDS, QUICK_SEEDS, QUICK_META_STEPS = 5, 1, 30
SEED = 0
