"""From a large table to a few new rows of the same kind: tuned configuration and trained weights handed on, with and without their guard."""

TARGET_ROWS = 40  # training rows of the target, the last of the table; the source has the others
SOURCE_CONFIGURATIONS = 32  # random ones, of which the source hands on the best
HANDED_ON = 2
TRIALS, SEEDS, QUICK_SEEDS = 3, 5, 2
QUICK_DATA_SETS = 16
SEED = 0
