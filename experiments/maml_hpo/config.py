"""The published example's own arguments: a learning rate meta-learned over batches of small classification tasks, drawn or real ones."""

TASKS, FEATURES, INNER_STEPS, META_STEPS = 10, 10, 5, 100  # tasks of a batch, drawn anew in every meta-step
HIDDEN, TRAIN_ROWS, VALID_ROWS = 50, 100, 20
RATE_BOUNDS = (1e-4, 1.0)  # of the inner learning rate, as in every space of this library
# Meta-training starts from both sides: the mean loss has a minimum near .65 and, on some tasks, a lower one at the upper bound.
STARTS = (0.05, 0.9)
META_RATE = 0.1  # of Adam, in free numbers, falling to 0 as a cosine
# With Adam's usual .9 and .999 a hundred steps run past the minimum, and divide by the large gradients of the first ones to the end.
META_B1, META_B2 = 0.5, 0.9
REPEATS = 8  # initial weights from which a meta-step trains each task; one, as in the example, leaves more noise than the target allows
GRID = 200  # learning rates, evenly spaced on a log scale over the bounds
# Each of the example's ten tasks is trained from so many initial weights at every rate of the grid, and from `REFINED` at the likely best ones:
# with 50 the mean loss is uncertain by 2 %, more than what is asked for.
TRAININGS, LIKELY, REFINED = 50, 16, 800
TRAININGS_ON_TABLES = 16  # of each real table at every rate
TEST_TASKS = 4_000  # fresh ones, on which the grid and what was learned are compared
SEEDS, QUICK_SEEDS = 10, 3
QUICK_DATA_SETS, QUICK_TRAININGS_ON_TABLES, QUICK_TEST_TASKS = 20, 4, 500
SEED = 0
WITHIN = 1.01  # of the best rate of the grid
