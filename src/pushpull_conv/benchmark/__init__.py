"""How robust a classifier is: counts per corruption and severity, and the measures made of them."""

from pushpull_conv.benchmark.evaluation import CellEvent, evaluate
from pushpull_conv.benchmark.metrics import corruption_errors, mce, mean_error, r_net, relative_mce
from pushpull_conv.benchmark.results import Cell, Header, Results, check_comparable
from pushpull_conv.benchmark.suites import SUITES, Suite

__all__ = [
    "SUITES",
    "Cell",
    "CellEvent",
    "Header",
    "Results",
    "Suite",
    "check_comparable",
    "corruption_errors",
    "evaluate",
    "mce",
    "mean_error",
    "r_net",
    "relative_mce",
]
