"""How methods are compared: the figures and their intervals, the stored result, tables, curves and the report."""

from metahpo_jax.evaluation.plots import colour as colour
from metahpo_jax.evaluation.plots import rank_curves as rank_curves
from metahpo_jax.evaluation.plots import regret_curves as regret_curves
from metahpo_jax.evaluation.plots import save_figure as save_figure
from metahpo_jax.evaluation.report import write_report as write_report
from metahpo_jax.evaluation.results import BenchmarkResult as BenchmarkResult
from metahpo_jax.evaluation.results import MethodRun as MethodRun
from metahpo_jax.evaluation.results import load as load
from metahpo_jax.evaluation.results import require_writable as require_writable
from metahpo_jax.evaluation.results import save as save
from metahpo_jax.evaluation.statistics import Interval as Interval
from metahpo_jax.evaluation.statistics import average_ranks as average_ranks
from metahpo_jax.evaluation.statistics import bootstrap_mean as bootstrap_mean
from metahpo_jax.evaluation.statistics import incumbent as incumbent
from metahpo_jax.evaluation.statistics import normalised_regret as normalised_regret
from metahpo_jax.evaluation.statistics import paired_difference as paired_difference
from metahpo_jax.evaluation.statistics import solved as solved
from metahpo_jax.evaluation.table import markdown_table as markdown_table
from metahpo_jax.evaluation.table import terminal_table as terminal_table
from metahpo_jax.evaluation.table import wide_console as wide_console
from metahpo_jax.files import require_writable_file as require_writable_file
