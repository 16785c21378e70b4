"""A configuration learned by MAML on real tables, used on tables that were held out; every network is really trained."""

START = {"learning_rate": 0.01, "weight_decay": 1e-4, "momentum": 0.5, "label_smoothing": 0.05}
FOLDS = 10  # groups of data sets, each held out in turn: stricter than one at a time
TASKS, META_STEPS, META_RATE = 8, 100, 0.15  # data sets of a batch; Adam's rate falls to 0 as a cosine
# Lengths of the first hypergradient step of an adaptation; a fold takes the best on the data sets that it knows.
RATES = (0.3, 0.6, 1.2, 2.4)
TABLE = 256  # random configurations trained on every data set, of which the baselines learn
TRIALS = 3
EVALUATIONS = 4  # trainings of a configuration on a data set, from other weights and minibatches, whose mean is the loss of a trial
QUICK_DATA_SETS, QUICK_FOLDS, QUICK_META_STEPS, QUICK_TABLE = 20, 2, 25, 160
SEED = 0
