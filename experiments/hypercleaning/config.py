"""Data hyper-cleaning (Franceschi et al. 2017, section 5.1) on MNIST-5k: half of the training labels are wrong, a small clean set is not."""

TRAIN, VALID, TEST = 2000, 1000, 2000  # images; the paper has 5,000, 5,000 and 10,000
WRONG = 0.5  # share of the training images that carry the label of another class
TOTAL = 0.2  # most that the weights of the training images, each from 0 to 1, add up to, per image: the paper's R of 1,000 for 5,000
STEPS, RATE = 300, 0.1  # of gradient descent of a softmax regression on all training images
FINAL_STEPS, FINAL_RATE = 2000, 0.05  # of the training on cleaned and validation images that is tested
META_STEPS, META_RATE = 200, 0.02  # Adam on the weights, which are projected after every step
LEVEL = 1e-3  # images with a lower weight are taken for wrongly labelled
SEEDS, QUICK_SEEDS, QUICK_META_STEPS = 5, 1, 60
SEED = 0
# Test accuracies and F1 of detection, Franceschi et al. (2017), table 1, R = 1,000.
PUBLISHED = {"oracle": 0.9046, "no_cleaning": 0.8774, "learned": 0.9007, "f1": 0.9137}
