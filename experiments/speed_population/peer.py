"""A peer as a process, under the interpreter of .venv-peers: same data, initial weights and minibatches, same protocol as `worker`.

python peer.py torch_loop|torch_func|sklearn PROBLEM.npz MODELS THREADS
"""

import json
import sys
import time
import warnings

import numpy as np

KIND, PROBLEM, MODELS, THREADS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
MOMENTUM = 0.9
warnings.filterwarnings("ignore")
DATA = dict(np.load(PROBLEM))
X, Y, ROWS = DATA["x"], DATA["y"], DATA["rows"]
RATE, DECAY = DATA["rate"][:MODELS], DATA["decay"][:MODELS]
BATCHES_X, BATCHES_Y = X[ROWS], Y[ROWS]


def sklearn():
    """One MLPClassifier per model, its batches in order (its own initial weights: no loss to compare)."""
    from sklearn.neural_network import MLPClassifier

    flat_x, flat_y = BATCHES_X.reshape(-1, X.shape[1]), BATCHES_Y.reshape(-1)

    def rep() -> float:
        for rate, decay in zip(RATE, DECAY, strict=True):
            model = MLPClassifier(
                (DATA["w1"].shape[0],),
                solver="sgd",
                alpha=float(decay),
                batch_size=ROWS.shape[1],
                learning_rate_init=float(rate),
                momentum=MOMENTUM,
                nesterovs_momentum=False,
                max_iter=1,
                shuffle=False,
            )
            model.fit(flat_x, flat_y)
        return float("nan")

    return rep


def torch_loop():
    """One network after the other with torch.optim.SGD."""
    import torch

    torch.set_num_threads(THREADS)
    x, y = torch.tensor(BATCHES_X), torch.tensor(BATCHES_Y.astype(np.int64))

    def rep() -> float:
        losses = []
        for rate, decay in zip(RATE, DECAY, strict=True):
            hidden, features = DATA["w1"].shape
            net = torch.nn.Sequential(
                torch.nn.Linear(features, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, DATA["w2"].shape[0])
            )
            with torch.no_grad():
                for target, name in zip(net.parameters(), ("w1", "b1", "w2", "b2"), strict=True):
                    target.copy_(torch.tensor(DATA[name]))
            optimiser = torch.optim.SGD(net.parameters(), lr=float(rate), momentum=MOMENTUM, weight_decay=float(decay))
            loss = torch.tensor(0.0)
            for i in range(len(x)):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(net(x[i]), y[i])
                loss.backward()
                optimiser.step()
            losses.append(float(loss))
        return float(np.mean(losses))

    return rep


def torch_func():
    """All networks in one torch.func.vmap."""
    import torch
    from torch.func import grad_and_value, vmap

    torch.set_num_threads(THREADS)
    x, y = torch.tensor(BATCHES_X), torch.tensor(BATCHES_Y.astype(np.int64))
    rate, decay = torch.tensor(RATE), torch.tensor(DECAY)

    def loss(params, x, y):
        w1, b1, w2, b2 = params
        return torch.nn.functional.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)

    gradients = vmap(grad_and_value(loss), (0, None, None))

    @torch.no_grad()
    def rep() -> float:
        params = tuple(
            torch.tensor(DATA[n]).expand(MODELS, *DATA[n].shape).contiguous() for n in ("w1", "b1", "w2", "b2")
        )
        moments = tuple(torch.zeros_like(p) for p in params)
        value = torch.zeros(MODELS)
        for i in range(len(x)):
            gradient, value = gradients(params, x[i], y[i])
            each = [v.reshape(MODELS, *[1] * 2) for v in (rate, decay)]
            shaped = [[v.reshape(MODELS, *[1] * (p.dim() - 1)) for v in each] for p in params]
            moments = tuple(
                MOMENTUM * m + g + d * p for m, g, p, (_, d) in zip(moments, gradient, params, shaped, strict=True)
            )
            params = tuple(p - r * m for p, m, (r, _) in zip(params, moments, shaped, strict=True))
        return float(value.mean())

    return rep


def main() -> None:
    """Warms up, says so, and repeats on demand."""
    rep = {"sklearn": sklearn, "torch_loop": torch_loop, "torch_func": torch_func}[KIND]()
    hidden, features = DATA["w1"].shape
    classes = DATA["w2"].shape[0]
    work = (4.0 * features * hidden + 6.0 * hidden * classes) * ROWS.size * MODELS
    print("READY", json.dumps({"work": work, "loss": rep()}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        rep()
        print(time.perf_counter() - began, 0, flush=True)


if __name__ == "__main__":
    main()
