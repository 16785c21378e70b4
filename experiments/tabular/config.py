"""Leave-one-data-set-out on the committed meta-dataset `tabular`: what is compared, and for how long."""

METHODS = ["random", "sobol", "grid", "portfolio", "portfolio_imagined", "gp", "pretrained_gp"]
TRIALS = 50
SEEDS = 5
QUICK_SEEDS = 1
QUICK_TASKS = 16  # the first of the catalogue
SEED = 0  # of everything that is random
EARLY = (1, 5, 10)  # trials at which the learned GP must be at or below the portfolio
LATE = (20, 50)  # and at or below the plain GP
