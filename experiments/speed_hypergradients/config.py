"""Meta-steps per second: the gradient of the mean validation loss over tasks with respect to one learning rate."""

FEATURES, HIDDEN, CLASSES = 10, 50, 2  # one hidden layer of rectified linear units
TRAIN_ROWS, VALID_ROWS = 100, 20  # of each task, all used in every step
META_RATE, RATE = 0.05, 0.05  # of Adam, and the learning rate that meta-training starts from
EXAMPLE = (10, 5)  # tasks x inner steps of the published example
CELLS = [(tasks, steps) for tasks in (8, 64, 512) for steps in (5, 50, 500)]
LARGEST = (512, 500)
SHARED = 64  # tasks from which on devices share them
QUICK_CELLS = [(8, 5), (8, 50), (64, 50)]
WORK = 40_000  # inner steps of one repetition, about; at least one meta-step
PEER_WORK = 8_000
ROUNDS, QUICK_ROUNDS = 5, 3
SEED = 0
# torch.func keeps what every inner step computed. A cell that would need more is not tried: bytes per task and step were seen to be 160 kB.
PEER_BYTES, PEER_LIMIT = 160_000, 16e9
TARGETS = {
    "10 x 5: ours / torch loop": 20.0,
    "10 x 5: ours / torch.compile": 1.0,
    "10 x 5: ours / higher": 20.0,
    "10 x 5: ours / torchopt": 20.0,
    "least ratio to torch.func over the cells that it can run": 1.0,
    "512 x 500: meta-steps per second": 0.2,
    "512 x 500: megabytes": 450.0,
    "512 x 500 on all devices: meta-steps per second, the goal": 0.5,
    "losses differ by at most": 1e-4,
    "hypergradients differ by at most": 1e-3,
}
