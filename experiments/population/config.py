"""What the population experiment counts and trains."""

SIZES = (256, 1024, 4096)  # of the random populations whose useful work is counted
TASK = "breast_cancer"
TRAINED = 48  # configurations that are really trained
QUICK_TRAINED = 24
SEED = 0
