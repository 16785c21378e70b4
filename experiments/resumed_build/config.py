"""How often a build is killed, and what it builds."""

KILLS, QUICK_KILLS = 10, 2
BUILD = ["--family", "bundled", "--tasks", "2", "--configurations", "16"]
SEED = 0
