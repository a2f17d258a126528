"""How robust a classifier is: counts per corruption and severity, and the measures made of them."""

from pushpull_conv.benchmark.evaluation import (
    CellEvent,
    count_cells,
    evaluate,
    generated,
    model_fingerprint,
    named_cells,
    wanted_cells,
)
from pushpull_conv.benchmark.metrics import corruption_errors, mce, mean_error, r_net, relative_mce
from pushpull_conv.benchmark.results import Cell, Header, Results, check_comparable
from pushpull_conv.benchmark.store import counted_model
from pushpull_conv.benchmark.suites import SUITES, Suite, suite_of
from pushpull_conv.benchmark.writing import PartEvent, write_set

__all__ = [
    "SUITES",
    "Cell",
    "CellEvent",
    "Header",
    "PartEvent",
    "Results",
    "Suite",
    "check_comparable",
    "corruption_errors",
    "count_cells",
    "counted_model",
    "evaluate",
    "generated",
    "mce",
    "mean_error",
    "model_fingerprint",
    "named_cells",
    "r_net",
    "relative_mce",
    "suite_of",
    "wanted_cells",
    "write_set",
]
