"""Few-shot regression of sinusoids as in section 5.1 of Finn, Abbeel and Levine (2017)."""

AMPLITUDE, PHASE, INPUTS = (0.1, 5.0), (0.0, 3.141592653589793), (-5.0, 5.0)
HIDDEN = (40, 40)  # units, with ReLU
SHOTS = (5, 10)  # examples of a new task; as many again measure the loss that is descended
TASKS_PER_STEP, META_STEPS, META_RATE = 25, 30_000, 1e-3  # Adam; the paper takes 70,000 steps
INNER_STEPS, INNER_RATE = 1, 0.01  # of meta-training; Meta-SGD learns its rates from there
REPTILE_STEPS, REPTILE_RATE = 10, 0.02  # Reptile needs more than one inner step to see more than the mean gradient
SEEDS, QUICK_SEEDS, QUICK_META_STEPS = 3, 1, 10_000
TEST_TASKS, TEST_POINTS = 600, 100
VALID_TASKS = 200  # on which the step size of fine-tuning the pre-trained network is chosen
FINE_TUNING_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
REPORTED = (0, 1, 5, 10)  # gradient steps on the new task
SEED = 0
# Mean squared error after one step, trained and tested with as many shots: Li et al. (2017), table 1. Finn et al. show curves only.
PUBLISHED_ONE_STEP = {"5": {"maml": 1.13, "meta_sgd": 0.90}, "10": {"maml": 0.77, "meta_sgd": 0.53}}
