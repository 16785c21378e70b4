"""The editions: how they are made, and what they must be."""

# metahpo build --family tabular --configurations 512 --again 51 --out results/tabular
# metahpo build --family images --configurations 128 --again 13 --out results/images
# metahpo select results/tabular --configurations 256 --out metahpo_jax/data/tabular
# metahpo select results/images --out metahpo_jax/data/images
EDITIONS = ("tabular", "images")
AGAIN = "{}-again"
TARGETS = {
    "tabular": {"tasks": 50, "base data sets": 50, "configurations": 512},
    "images": {"tasks": 100, "base data sets": 5, "configurations": 128},
}
MOST_SECONDS = 3 * 3600.0
TENTH = 10  # one in so many configurations is trained a second time
USEFUL_SHARE = 0.5  # of the FLOPs that are executed
MOST_MEGABYTES = 25.0  # of what is committed
