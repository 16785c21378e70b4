"""How fast hypergradients are: our meta-training beside PyTorch's loop, torch.func, torch.compile, higher and TorchOpt, turn by turn in one run.

python -m experiments.speed_hypergradients.run         # about 15 minutes on 2 cores; `make peers` first
python -m experiments.speed_hypergradients.run --quick

The machine should have nothing else to do. Figures are meta-steps per second; ratios are medians over rounds in which every competitor ran
once. Ours run on one core, except for "forward, all devices", whose devices share the tasks; PyTorch may use all cores.
"""

import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.record import arguments, measured, one_thread_each, write

one_thread_each()

from experiments.race import PEERS, Competitor, race, ratio, summary
from experiments.speed_hypergradients import config, problem
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.population.devices import cores

CORES = cores()
SPREAD = "forward, all devices"
LIBRARIES = ("higher", "torchopt")  # for PyTorch
claim = functools.partial(measured, config.TARGETS)


def own(estimator: str, file: str, cell: tuple[int, int], devices: int = 1) -> Competitor:
    """One of our estimators."""
    tasks, steps = cell
    command = [sys.executable, "-m", "experiments.speed_hypergradients.worker", estimator, file, str(steps)]
    work = max(1, config.WORK // (tasks * steps))
    return Competitor(estimator if devices == 1 else SPREAD, [*command, str(work), str(devices)])


def peer(kind: str, file: str, cell: tuple[int, int]) -> Competitor:
    """A peer in its own environment."""
    tasks, steps = cell
    script = str(Path(__file__).with_name("peer.py"))
    work = str(max(1, config.PEER_WORK // (tasks * steps)))
    return Competitor(
        kind if kind in LIBRARIES else f"torch {kind}", [str(PEERS), script, kind, file, str(steps), work, str(CORES)]
    )


def entries_of(cell: tuple[int, int], file: str) -> list[Competitor]:
    """Who runs in a cell: all in the published example's, ours and torch.func elsewhere."""
    if cell == config.EXAMPLE:
        ours = [own(name, file, cell) for name in ("forward", "reverse", "checkpointed")]
        return ours + [peer(kind, file, cell) for kind in ("loop", "func", "compile", *LIBRARIES)]
    entries = [own("forward", file, cell)]
    if cell[0] >= config.SHARED and CORES > 1:
        entries.append(own("forward", file, cell, CORES))
    if cell[0] * cell[1] * config.PEER_BYTES <= config.PEER_LIMIT:
        entries.append(peer("func", file, cell))
    return entries


def title(cell: tuple[int, int]) -> str:
    """Tasks x inner steps."""
    return f"{cell[0]} x {cell[1]}"


def main() -> None:
    """Races, draws, writes."""
    options = arguments(__doc__ or "", "experiments/speed_hypergradients/results.json").parse_args()
    began = time.perf_counter()
    rounds = config.QUICK_ROUNDS if options.quick else config.ROUNDS
    cells = [config.EXAMPLE, *(config.QUICK_CELLS if options.quick else config.CELLS)]
    figures: dict[str, Any] = {}
    ratios: dict[str, float | None] = {}
    differences: dict[str, list[float]] = {"first_loss": [], "first_slope": []}
    claims = []
    for cell in cells:
        print(title(cell), file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "problem.npz"
            problem.make(cell[0], file)
            done = race(entries_of(cell, str(file)), rounds)
        figures[title(cell)] = summary(done)
        ratios[title(cell)] = ratio(done, "forward", "torch func")
        for fact, found in differences.items():
            values = [entry.facts[fact] for entry in done.values()]
            if len(values) > 1 and None not in values:
                found.append(max(abs(value - values[0]) / abs(values[0]) for value in values))
        if cell == config.EXAMPLE:
            claims += [
                claim("10 x 5: ours / torch loop", ratio(done, "forward", "torch loop")),
                claim("10 x 5: ours / torch.compile", ratio(done, "forward", "torch compile")),
                *[claim(f"10 x 5: ours / {name}", ratio(done, "forward", name)) for name in LIBRARIES],
            ]
    figures["forward / torch.func"] = ratios
    known = [value for name, value in ratios.items() if value is not None and name != title(config.EXAMPLE)]
    claims += [
        claim("least ratio to torch.func over the cells that it can run", min(known, default=None)),
        claim("losses differ by at most", max(differences["first_loss"], default=None), most=True),
        claim("hypergradients differ by at most", max(differences["first_slope"], default=None), most=True),
    ]
    if config.LARGEST in cells:
        found = figures[title(config.LARGEST)]
        enough = config.TARGETS["512 x 500: meta-steps per second"]
        # The most frugal way of those that are fast enough; how fast all devices are is said as well.
        ways = [found[name] for name in ("forward", SPREAD) if name in found]
        largest = min(ways, key=lambda way: (way["median"] < enough, way["peak_megabytes"]))
        claims += [
            claim("512 x 500: meta-steps per second", largest["median"]),
            claim("512 x 500: megabytes", float(largest["peak_megabytes"]), most=True),
            claim("512 x 500 on all devices: meta-steps per second, the goal", max(way["median"] for way in ways)),
        ]
    draw(figures, cells, options.out.with_suffix(".png"))
    left_out = [title(cell) for cell in config.CELLS if cell not in cells]
    not_tested = [f"cells {', '.join(left_out)}"] if left_out else []
    too_large = [title(cell) for cell in cells if ratios[title(cell)] is None]
    not_tested += [f"torch.func in {', '.join(too_large)}: missing, or in need of too much memory"] if too_large else []
    write(
        options.out, command="python -m experiments.speed_hypergradients.run" + (" --quick" if options.quick else ""),
        seeds=[config.SEED], seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=not_tested, versions=versions(),
    )  # fmt: skip


def draw(figures: dict[str, Any], cells: list[tuple[int, int]], path: Path) -> None:
    """Meta-steps per second of the published example, and inner steps per second over the cells."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2)
    example = figures[title(config.EXAMPLE)]
    drawn = left.barh(list(example), [entry["median"] for entry in example.values()])
    left.bar_label(drawn, fmt="%.4g", padding=3)
    left.margins(x=0.2)
    left.invert_yaxis()
    left.set(xlabel="meta-steps per second", title="10 tasks x 5 inner steps")
    others = [cell for cell in cells if cell != config.EXAMPLE]
    for name in ("forward", SPREAD, "torch func"):
        run = [(i, cell) for i, cell in enumerate(others) if name in figures[title(cell)]]
        rates = [figures[title(cell)][name]["median"] * cell[0] * cell[1] for _, cell in run]
        right.semilogy([i for i, _ in run], rates, marker="o", label=name)
    right.set_xticks(range(len(others)), [title(cell) for cell in others], rotation=45)
    right.set(ylabel="inner steps of all tasks per second", title="tasks x inner steps")
    right.legend()
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
