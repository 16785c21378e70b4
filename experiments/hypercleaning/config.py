"""Data hyper-cleaning (Franceschi et al. 2017, section 5.1) on MNIST-5k: half of the training labels are random, a small clean set is not."""

TRAIN, VALID, TEST = 2000, 1000, 2000  # images; the paper has 5,000, 5,000 and 10,000
CORRUPTED = 0.5  # share of the training labels that are drawn anew
STEPS, RATE = 300, 0.05  # of gradient descent of a softmax regression on all training images
FINAL_STEPS = 2000  # of the training on cleaned and validation images that is tested, as in the paper
META_STEPS, META_RATE = 100, 0.5  # Adam on one free number per training image
LEVEL = 0.5  # images with a lower weight are taken for corrupted
SEEDS, QUICK_SEEDS, QUICK_META_STEPS = 5, 1, 40
SEED = 0
# Test accuracies and F1 of detection, Franceschi et al. (2017), table 1.
PUBLISHED = {"oracle": 0.9046, "no_cleaning": 0.8774, "learned": 0.9007, "f1": 0.9137}
