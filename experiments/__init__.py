"""Studies with recorded results: `python -m experiments.NAME.run [--quick] [--data DIR] [--out FILE]`."""
