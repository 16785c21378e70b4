"""A learning rate learned over ten steps and used for a thousand: the bias of Wu et al. 2018, and what mends it."""

SHORT, LONG = 10, 1_000  # updates over which a rate is learned, and for which it is used
DEPTH, WIDTH, BATCH, MOMENTUM = 2, 32, 16, 0.9  # networks on tables, under gradient descent
RATE_BOUNDS, RATE_START = (1e-4, 1.0), 0.01
TASKS = 8  # data sets of a batch, drawn from those that are not held out
# Meta-steps of each way to learn, and Adam's rate in free numbers, falling to 0 as a cosine. A meta-step is a whole training for some and one
# window of it for others, hence the different numbers.
META = {
    "short": (300, 0.1), "truncated": (2_000, 0.1), "pes": (1_000, 0.1), "nres": (1_000, 0.1), "full": (80, 0.3), "sharing": (80, 0.3)
}  # fmt: skip
PES_WINDOW, PAIRS, SIGMA = 50, 4, 0.3
WINDOWS = 5  # of a rate that changes over the training
GRID = 25  # constant rates, evenly spaced on a log scale over the bounds
EVALUATIONS = 4  # trainings of each data set with each rate, from other weights and minibatches
SEEDS, QUICK_SEEDS = 3, 1
QUICK_META_STEPS = 0.5  # share of the above
QUICK_DATA_SETS = 24
SEED = 0
WITHIN = 1.02  # of the loss of the best constant rate
