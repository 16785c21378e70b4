"""What is timed beside what: every competitor runs as a process of its own, one repetition of each in turn."""

ROUNDS, QUICK_ROUNDS = 5, 2
SIZES = {
    "small": (10, 50, 2),
    "large": (64, 128, 10),
}  # features, hidden units, classes of a network with one hidden layer
BATCH = 128
MODELS = {"small": 256, "large": 64}
STEPS = {"small": 1000, "large": 500}
FEWER = {"torch_loop": 8, "sklearn": 8}  # these train a fraction of the models: their rate does not depend on how many
MIXED, MIXED_SAMPLES = 384, 4096  # configurations of the whole space, samples of each run
QUICK_DEPTH, QUICK_BATCH = (
    2,
    64,
)  # a quick run keeps those of this depth and batch: the others would need minutes of compilation
CONVOLUTION = {
    "blocks": 3, "channels": 16, "kernel": 3, "batch_size": 64, "activation": "relu", "optimiser": "momentum", "dropout": 0.0,
    "label_smoothing": 0.0, "schedule": "constant",
}  # fmt: skip
IMAGE_SIDE, IMAGE_CLASSES = 16, 10
CONVOLUTION_MODELS, CONVOLUTION_SAMPLES, CONVOLUTION_SAMPLES_VMAP = 16, 8192, 512  # plain `vmap` is too slow for more
QUICK_LEAVES_OUT = [
    "seconds and bytes per training over the number of trainings",
    "most depths and batches of the mixed population",
    "the torch loop, scikit-learn, and vmap of the convolutional networks",
]
COUNTS = (100, 1_000, 10_000, 100_000)  # trainings, for the line of cost over number
COUNT_SAMPLES = 16 * 128
SEED = 0
# Of the ratio of medians, or of useful GFLOP/s
TARGETS = {
    "small / vmap": 5.0,
    "small / torch.func": 8.0,
    "large / two-core matrix product": 0.7,
    "mixed / vmap over the same groups": 3.0,
    "mixed / unmasked": 0.5,
    "convolutions, useful GFLOP/s": 60.0,
    "two devices / one": 1.8,
    "two devices / one on one core": 1.8,
    "losses differ by at most": 1e-3,
    "seconds per training, most over least": 1.5,
    "bytes per training": 2_000.0,
}
