"""HPO-B's discrete track from the published starts: what is compared, and with what."""

METHODS = ["random", "portfolio", "gp", "pretrained_gp"]
SEEDS = 5
SEED = 0  # of everything that is random; the starts are fixed
QUICK_SPACES = ["4796", "5889", "5906"]  # with the smallest pools
QUICK_SEEDS = 2
PUBLISHED = {"random": "Random (published)", "gp": "GP (published)", "pretrained_gp": "FSBO2 (published)"}
PORTFOLIO = {5: 0.067, 10: 0.060}  # the weaker of two independent static lists
SECONDS = 3600.0  # on two cores
