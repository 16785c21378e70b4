"""What the recorded meta-datasets hold, what they cost, and how much of a loss is noise.

make datasets                                          # then build both, which takes about two hours on 2 cores:
metahpo build --family tabular --configurations 512 --again 51 --out results/tabular
metahpo build --family images --configurations 128 --again 13 --out results/images
python -m experiments.meta_datasets.run --data results # seconds; writes experiments/meta_datasets/results.json and a picture
python -m experiments.meta_datasets.run --quick        # the compact editions that come with the package
"""

import time
from importlib import resources
from pathlib import Path

import numpy as np

from experiments.meta_datasets import config
from experiments.record import Claim, arguments, at_least, at_most, write
from metahpo_jax.base import Status
from metahpo_jax.evaluation import save_figure
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.metadata import MetaDataset, load_metadataset
from metahpo_jax.metadata.builder import make_plan


def main() -> None:
    """Reads what was built, and writes figures, a picture and claims."""
    options = arguments(__doc__ or "", "experiments/meta_datasets/results.json").parse_args()
    began = time.perf_counter()
    folder = None if options.quick else options.data or Path("results")
    figures, claims = {}, []
    not_tested = [] if folder else ["configurations beyond the compact editions", "cost of the builds", "noise"]
    for name in config.EDITIONS:
        dataset = load_metadataset(name if folder is None else folder / name)
        figures[name] = facts(dataset)
        claims += (
            tasks_only(name, dataset) if folder is None else sizes(name, dataset) + costs(name, figures[name]["build"])
        )
        if folder is not None:
            again = load_metadataset(folder / config.AGAIN.format(name))
            figures[name] |= noise(dataset, again)
            claims.append(
                at_least(f"{name}: configurations trained again", len(again.u), len(dataset.u) // config.TENTH)
            )
            if not figures[name]["build"]["programs_of_last_call"]:
                not_tested.append(f"compilations of {name}, whose build was stopped and resumed")
            save_figure(picture(dataset, again), options.out.with_name(f"{options.out.stem}_{name}.png"))
    with resources.as_file(resources.files("metahpo_jax") / "data") as committed:
        size = sum(file.stat().st_size for file in committed.rglob("*") if file.is_file()) / 1e6
    claims.append(at_most("megabytes committed", size, config.MOST_MEGABYTES))
    write(
        options.out, command="python -m experiments.meta_datasets.run" + (" --quick" if options.quick else f" --data {folder}"), seeds=[0],
        seconds=time.perf_counter() - began, figures=figures, claims=claims, versions=versions(),
        not_tested=not_tested,
    )  # fmt: skip


def facts(dataset: MetaDataset) -> dict:
    """What a meta-dataset holds, and what its provenance says of its build."""
    objective = dataset.objective()
    prior = np.asarray([task.prior_entropy for task in dataset.tasks])
    return {
        "tasks": len(dataset.tasks), "base_data_sets": len(dataset.bases), "configurations": len(dataset.u),
        "points": dataset.fidelity.tolist(), "content_hash": dataset.content_hash,
        "failed": float((dataset.status != Status.OK).mean()),
        "best_over_prior_entropy": quartiles(objective.min(1) / prior),
        "no_better_than_the_prior": float((objective >= prior[:, None]).mean()),
        "build": dataset.provenance[0],
    }  # fmt: skip


def quartiles(values: np.ndarray) -> list[float]:
    """Lower quartile, median and upper quartile."""
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def tasks_only(name: str, dataset: MetaDataset) -> list[Claim]:
    """Claims on what both editions share."""
    targets = config.TARGETS[name]
    return [
        at_least(f"{name}: tasks", len(dataset.tasks), targets["tasks"]),
        at_least(f"{name}: base data sets", len(dataset.bases), targets["base data sets"]),
    ]


def sizes(name: str, dataset: MetaDataset) -> list[Claim]:
    """Claims on the size of a full edition."""
    targets = config.TARGETS[name]
    return [
        *tasks_only(name, dataset),
        at_least(f"{name}: configurations", len(dataset.u), targets["configurations"]),
    ]


def costs(name: str, build: dict) -> list[Claim]:
    """Claims on what a build took; `build` is its provenance."""
    share = build["useful_flops"] / build["executed_flops"]
    out = [
        at_most(f"{name}: seconds of the build", build["seconds"], config.MOST_SECONDS),
        at_least(f"{name}: useful share of the executed FLOPs", share, config.USEFUL_SHARE),
    ]
    if build["programs_of_last_call"]:
        needed = shapes_and_capacities(name)
        out.append(at_most(f"{name}: programs compiled by the build", build["programs_of_last_call"], needed))
    return out


def shapes_and_capacities(name: str) -> int:
    """Task shapes times capacities of an edition: the programs that it needs."""
    plan = make_plan(name, None, config.TARGETS[name]["configurations"], 0)
    shapes = {plan.family.shape(task) for task in plan.tasks}
    return len(shapes) * len(set(plan.learner.configs(plan.u)[1]))


def noise(dataset: MetaDataset, again: MetaDataset) -> dict:
    """Standard deviation over seeds, beside that over configurations, and rank agreement of the two trainings."""
    from scipy.stats import spearmanr

    count = len(again.u)
    one, two = dataset.objective()[:, :count], again.objective()
    over_seeds = np.sqrt(((one - two) ** 2).mean(1) / 2)
    agreement = [spearmanr(a, b)[0] for a, b in zip(one, two, strict=True)]
    return {
        "trained_again": count,
        "noise_over_spread": quartiles(over_seeds / one.std(1)),
        "rank_agreement": quartiles(np.asarray(agreement)),
        "build_again": again.provenance[0],
    }


def picture(dataset: MetaDataset, again: MetaDataset):  # a matplotlib figure
    """What each task has to gain, and how well a second training repeats the first."""
    import matplotlib.pyplot as plt

    prior = np.asarray([task.prior_entropy for task in dataset.tasks])[:, None]
    share = dataset.objective() / prior
    order = np.argsort(np.median(share, 1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    rows = np.arange(len(order))
    low, lower, middle, upper = np.quantile(share[order], (0.0, 0.25, 0.5, 0.75), axis=1)
    left.fill_between(rows, low, 1.0, color="C0", alpha=0.12, label="best to no better than the prior")
    left.fill_between(rows, lower, upper, color="C0", alpha=0.4, label="middle half of the configurations")
    left.plot(rows, middle, color="C0", label="median")
    left.set(xlabel="tasks, by their median", ylabel="log-loss / entropy of the classes", ylim=(0, None))
    left.set_title(f"{dataset.name}: {len(rows)} tasks x {len(dataset.u)} configurations")
    figure.legend(loc="outside lower left", ncols=3, fontsize="small")
    right.scatter(share[:, : len(again.u)].ravel(), (again.objective() / prior).ravel(), s=3, alpha=0.25, linewidths=0)
    right.axline((0, 0), slope=1, color="0.4", linewidth=0.8)
    right.set(
        xlabel="one training", ylabel="another, of other weights and minibatches", title="how much is noise", aspect=1
    )
    return figure


if __name__ == "__main__":
    main()
