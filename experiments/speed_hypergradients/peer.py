"""The same meta-training in PyTorch, as a process under the interpreter of .venv-peers; same protocol as `worker`.

python peer.py loop|func|compile|higher|torchopt PROBLEM.npz STEPS META_STEPS THREADS
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy

KIND, PROBLEM, STEPS, META_STEPS, THREADS = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(THREADS)
with np.load(PROBLEM) as arrays:
    DATA = {name: torch.tensor(arrays[name]) for name in arrays.files}
BATCH = (DATA["x"], DATA["y"].long(), DATA["valid_x"], DATA["valid_y"].long())


def initial() -> list[torch.Tensor]:
    """Weights and biases."""
    w1, w2 = DATA["w1"], DATA["w2"]
    return [w1, torch.zeros(len(w1)), w2, torch.zeros(len(w2))]


def loss(p: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of the network."""
    hidden = torch.relu(torch.addmm(p[1], x, p[0].T))
    return cross_entropy(torch.addmm(p[3], hidden, p[2].T), y)


def by_loop():
    """One task after the other, with the graph of the inner steps kept."""

    def value_and_slope(log_rate: torch.Tensor):
        log_rate = log_rate.clone().requires_grad_()
        total = torch.zeros(())
        for x, y, valid_x, valid_y in zip(*BATCH, strict=True):
            p = [w.clone().requires_grad_() for w in initial()]
            for _ in range(STEPS):
                slopes = torch.autograd.grad(loss(p, x, y), p, create_graph=True)
                p = [w - log_rate.exp() * s for w, s in zip(p, slopes, strict=True)]
            total = total + loss(p, valid_x, valid_y)
        mean = total / len(BATCH[0])
        return mean, torch.autograd.grad(mean, log_rate)[0]

    return value_and_slope


def by_func():
    """All tasks at once by `torch.func.vmap`, and through the inner steps by `torch.func.grad`."""
    from torch.func import grad, grad_and_value, vmap

    def of_task(log_rate, x, y, valid_x, valid_y):
        p = initial()
        for _ in range(STEPS):
            p = [w - log_rate.exp() * s for w, s in zip(p, grad(loss)(p, x, y), strict=True)]
        return loss(p, valid_x, valid_y)

    whole = grad_and_value(lambda log_rate: vmap(of_task, (None, 0, 0, 0, 0))(log_rate, *BATCH).mean())

    def value_and_slope(log_rate):
        slope, value = whole(log_rate)
        return value, slope

    return value_and_slope


def network() -> torch.nn.Module:
    """As a module, which is what libraries for differentiable optimisers want."""
    w1, w2 = DATA["w1"], DATA["w2"]
    layers = [torch.nn.Linear(w.shape[1], w.shape[0]) for w in (w1, w2)]
    with torch.no_grad():
        for layer, w in zip(layers, (w1, w2), strict=True):
            layer.weight.copy_(w)
            layer.bias.zero_()
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])


def by_library(loss_of_task):
    """One task after the other; `loss_of_task(rate, x, y, valid_x, valid_y)` trains with a library's optimiser."""

    def value_and_slope(log_rate: torch.Tensor):
        log_rate = log_rate.clone().requires_grad_()
        mean = sum(loss_of_task(log_rate.exp(), *task) for task in zip(*BATCH, strict=True)) / len(BATCH[0])
        return mean, torch.autograd.grad(mean, log_rate)[0]

    return value_and_slope


def by_higher():
    """Grefenstette et al. 2019: an optimiser of torch made differentiable, its learning rate overridden."""
    import higher

    def loss_of_task(rate, x, y, valid_x, valid_y):
        module = network()
        optimiser = torch.optim.SGD(module.parameters(), 1.0)
        with higher.innerloop_ctx(module, optimiser, override={"lr": [rate]}) as (fast, inner):
            for _ in range(STEPS):
                inner.step(cross_entropy(fast(x), y))
            return cross_entropy(fast(valid_x), valid_y)

    return by_library(loss_of_task)


def by_torchopt():
    """Ren et al. 2023: differentiable SGD of rate 1 on the loss times the learning rate, which is the same."""
    import torchopt

    def loss_of_task(rate, x, y, valid_x, valid_y):
        module = network()
        inner = torchopt.MetaSGD(module, 1.0)
        for _ in range(STEPS):
            inner.step(rate * cross_entropy(module(x), y))
        return cross_entropy(module(valid_x), valid_y)

    return by_library(loss_of_task)


def main() -> None:
    """Warms up, then repeats on demand."""
    make = {"loop": by_loop, "func": by_func, "compile": by_func, "higher": by_higher, "torchopt": by_torchopt}
    value_and_slope = make[KIND]()
    if KIND == "compile":
        value_and_slope = torch.compile(value_and_slope)

    def meta_training(steps: int) -> tuple[float, float]:
        """Loss and length of the slope in the first step."""
        log_rate = torch.log(DATA["rate"]).clone().requires_grad_()
        optimiser, first = torch.optim.Adam([log_rate], float(DATA["meta_rate"])), None
        for i in range(steps):
            value, slope = value_and_slope(log_rate.detach())
            first = (value.item(), abs(slope.item())) if i == 0 else first
            log_rate.grad = slope
            optimiser.step()
        return first

    began = time.perf_counter()
    loss_, slope = meta_training(1)
    facts = {
        "work": META_STEPS,
        "first_loss": loss_,
        "first_slope": slope,
        "compile_seconds": round(time.perf_counter() - began, 2),
    }
    print("READY", json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        meta_training(META_STEPS)
        seconds = time.perf_counter() - began
        print(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


if __name__ == "__main__":
    main()
