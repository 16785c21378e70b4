"""How fast populations train: the engine beside plain vmap, PyTorch and scikit-learn, turn by turn in one run, and beside the machine's limit.

python -m experiments.speed_population.run         # about 20 minutes on 2 cores; `make peers` first
python -m experiments.speed_population.run --quick

The machine should have nothing else to do. Figures are useful GFLOP/s by model FLOPs; ratios are medians over rounds in which every
competitor ran once.
"""

import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.record import Claim, arguments, measured, one_thread_each, write

one_thread_each()

from experiments.race import PEERS, Competitor, race, ratio, summary
from experiments.speed_population import config, problem
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.population.devices import cores

claim = functools.partial(measured, config.TARGETS)


def own(
    kind: str, size: str, problem_file: str, devices: int, name: str | None = None, *, pinned: bool = False
) -> Competitor:
    """One of ours, or plain vmap; `pinned` to one core."""
    command = [sys.executable, "-m", "experiments.speed_population.worker", kind, size, problem_file, str(devices)]
    return Competitor(name or kind, command + ["pinned"] * pinned)


def peer(kind: str, problem_file: str, models: int, threads: int) -> Competitor:
    """A peer in its own environment."""
    script = str(Path(__file__).with_name("peer.py"))
    return Competitor(kind, [str(PEERS), script, kind, problem_file, str(models), str(threads)])


def main() -> None:
    """Races, draws, writes."""
    options = arguments(__doc__ or "", "experiments/speed_population/results.json").parse_args()
    began, devices = time.perf_counter(), cores()
    rounds = config.QUICK_ROUNDS if options.quick else config.ROUNDS
    claims, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for size in config.SIZES:
            print(f"{size} network", file=sys.stderr)
            file = str(Path(folder) / f"{size}.npz")
            problem.make(size, Path(file))
            entries = [
                own("ours", size, file, devices),
                own("ours", size, file, 1, "ours, one device"),
                own("ours", size, file, 1, "ours, one core", pinned=True),
                own("vmap", size, file, 1),
                own("product", size, file, devices, "two-core matrix product"),
                peer("torch_func", file, config.MODELS[size], devices),
            ]
            if not options.quick:
                entries += [
                    peer(kind, file, max(1, config.MODELS[size] // part), devices)
                    for kind, part in config.FEWER.items()
                ]
            done = race(entries, rounds)
            figures[size] = summary(done)
            if size == "small":
                claims += [
                    claim("small / vmap", ratio(done, "ours", "vmap")),
                    claim("small / torch.func", ratio(done, "ours", "torch_func")),
                ]
                # XLA spreads the elementwise operations of one device over all cores, so that it is not half of two.
                claims.append(claim("two devices / one", ratio(done, "ours", "ours, one device")))
                claims.append(claim("two devices / one on one core", ratio(done, "ours", "ours, one core")))
                loss = done["ours"].facts["loss"]
                same = [abs(done[n].facts["loss"] - loss) / abs(loss) for n in ("vmap", "torch_func") if n in done]
                claims.append(claim("losses differ by at most", max(same) if len(same) == 2 else None, most=True))
            else:
                claims.append(claim("large / two-core matrix product", ratio(done, "ours", "two-core matrix product")))
        print("mixed population", file=sys.stderr)
        part = "quick" if options.quick else "all"
        done = race(
            [
                own(kind, part, "-", 1 if kind == "mixed_vmap" else devices)
                for kind in ("mixed", "unmasked", "mixed_vmap")
            ],
            rounds,
        )
        figures["mixed"] = summary(done)
        claims += [
            claim("mixed / vmap over the same groups", ratio(done, "mixed", "mixed_vmap")),
            claim("mixed / unmasked", ratio(done, "mixed", "unmasked")),
        ]
        print("convolutional networks", file=sys.stderr)
        entries = [own("convolution", "-", "-", devices)]
        if not options.quick:
            entries.append(own("convolution_vmap", "-", "-", 1))
        done = race(entries, rounds)
        figures["convolution"] = summary(done)
        claims.append(claim("convolutions, useful GFLOP/s", statistics.median(done["convolution"].rates) / 1e9))
        if not options.quick:
            figures["count"], more = cost_of_one(devices, rounds)
            claims += more
    draw(figures, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.speed_population.run" + (" --quick" if options.quick else ""), seeds=[config.SEED],
        seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=config.QUICK_LEAVES_OUT if options.quick else [],
        versions=versions(),
    )  # fmt: skip


def cost_of_one(devices: int, rounds: int) -> tuple[dict[str, Any], list[Claim]]:
    """Seconds and memory per training over the number of trainings, which only large numbers show beside what every process costs."""
    print("number of trainings", file=sys.stderr)
    done = race([own("count", str(n), "-", devices, str(n)) for n in config.COUNTS], rounds)
    per_training = [1.0 / statistics.median(done[str(n)].rates) for n in config.COUNTS]
    growth = (done[str(config.COUNTS[-1])].peak - done[str(config.COUNTS[0])].peak) / config.COUNTS[-1]
    return summary(done), [
        claim("seconds per training, most over least", max(per_training) / min(per_training), most=True),
        claim("bytes per training", growth, most=True),
    ]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Throughput per competitor and network, and seconds per training against their number."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 3.8), layout="constrained")
    bars, line = picture.subplots(1, 2, width_ratios=(2, 1))
    names = list(dict.fromkeys(name for size in config.SIZES for name in figures[size]))
    height = 0.8 / len(config.SIZES)
    for k, size in enumerate(config.SIZES):
        at = [i + (k - 0.5) * height for i, name in enumerate(names) if name in figures[size]]
        values = [figures[size][name]["median"] / 1e9 for name in names if name in figures[size]]
        drawn = bars.barh(at, values, height, label="{}-{}-{}".format(*config.SIZES[size]))
        bars.bar_label(drawn, fmt="%.3g", padding=3)
    bars.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="useful GFLOP/s",
        xscale="log",
        title="training many networks",
    )
    bars.set_xlim(right=2 * bars.get_xlim()[1])  # room for the figures
    bars.invert_yaxis()
    bars.legend(title="network")
    counted = figures.get("count", {})
    line.loglog([int(n) for n in counted], [1e3 / entry["median"] for entry in counted.values()], marker="o")
    line.set(xlabel="trainings", ylabel="milliseconds per training", title="cost of one among many", ylim=(1e-2, None))
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
