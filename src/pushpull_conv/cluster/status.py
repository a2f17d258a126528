"""What became of a run: a table of variants and cells, and the last error of each task that failed."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from pushpull_conv.cluster.slurm import Queued
from pushpull_conv.cluster.tasks import COMPARE, PARTS, TRAIN, Key, Run, Task, benchmark_array, tasks
from pushpull_conv.corruptions.spec import CORRUPTIONS, by_group
from pushpull_conv.repeats import broken_name

LEGEND = "Each corruption: 5 done, r running, q queued, F failed, 0-4 severities counted and nothing under way"
_STYLES = {"5": "green", "r": "blue", "q": "dim", "F": "bold red"}
_LEAST_TRAINING = len("running,")
_TAIL_BYTES = 2**16
_ERROR = re.compile(r"error|exception|cancelled|killed|no space left|out of memory", re.IGNORECASE)


def status(run: Run, queue: Mapping[Key, Queued] | None) -> tuple[Table, list[str]]:
    """Return the table of a run and the lines below it. No word of it is cut: in a narrow terminal it may be wider.

    Args:
        run: The run.
        queue: Its tasks in SLURM's queue; None: not known, so that no task can be told to have failed.
    """
    found = {task.key: task for task in tasks(run)}
    states = {key: _state(run, task, queue) for key, task in found.items()}
    groups = by_group(CORRUPTIONS)
    title = escape(f"{run.name} in {run.folder}")
    names = [_Name(variant) for variant in run.teachers]
    counts = {variant: run.counted(variant) for variant in run.teachers}
    columns = (
        Column("Variant", min_width=max(name.least for name in names)),
        Column("Training", min_width=_LEAST_TRAINING),
        Column("Cells", min_width=max(len(_sum(counted)) for counted in counts.values())),
        *(Column(group.capitalize(), min_width=max(len(group), 2 * len(groups[group]) - 1)) for group in groups),
    )
    table = Table(*columns, title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (variant, counted) in enumerate(counts.items()):
        training = _training(run, variant, states[TRAIN, number])
        parts = {name: states[benchmark_array(variant), place] for place, part in enumerate(PARTS) for name in part}
        cells = [" ".join(_cell(*counted[name], parts[name]) for name in names) for names in groups.values()]
        table.add_row(names[number], training, _sum(counted), *cells)
    return table, [*_summary(states, queue), *_failures(run, states)]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A variant's name, which a narrow column breaks after its signs."""

    text: str

    @property
    def least(self) -> int:
        """The length of its longest part."""
        return max(map(len, broken_name(self.text, 0).splitlines()))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.least, len(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(broken_name(self.text, options.max_width))


def _state(run: Run, task: Task, queue: Mapping[Key, Queued] | None) -> str:
    """``done``, ``running``, ``queued``, ``failed`` (begun, not done, and no longer in the queue) or ``""``."""
    if task.done:
        return "done"
    if queue is None:
        return ""
    if task.key in queue:
        return "running" if queue[task.key].running else "queued"
    return "failed" if run.log(task.key).exists() else ""


def _training(run: Run, variant: str, state: str) -> str:
    epochs = f"epoch {run.epochs_done(variant)} of {run.epochs}"
    return "done" if state == "done" else f"{state}, {epochs}" if state else epochs


def _sum(counts: Mapping[str, tuple[int, int]]) -> str:
    counted, wanted = map(sum, zip(*counts.values(), strict=True))
    return f"{counted} of {wanted}"


def _cell(counted: int, wanted: int, state: str) -> str:
    """One character for all severities of a corruption; ``state`` is that of the task that counts it."""
    letters = {"running": "r", "queued": "q", "failed": "F"}
    shown = str(5 * counted // wanted)
    if counted < wanted:
        shown = letters.get(state, shown)
    return f"[{_STYLES[shown]}]{shown}[/]" if shown in _STYLES else shown


def _summary(states: Mapping[Key, str], queue: Mapping[Key, Queued] | None) -> Iterator[str]:
    """How many tasks are in which state, why those in the queue wait, and what became of the report."""
    counts = Counter(state or "not submitted" for state in states.values())
    reasons = Counter(queue[key].reason for key, state in states.items() if queue and state == "queued")
    why = f" ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common())})" if reasons else ""
    order = ("done", "running", "queued", "failed", *(() if queue is None else ("not submitted",)))
    listed = [f"{counts[state]} {state}{why if state == 'queued' else ''}" for state in order if counts[state]]
    yield f"{len(states)} tasks: {', '.join(listed) or 'none done'}; report: {states[COMPARE, 0] or 'not yet'}"


def _failures(run: Run, states: Mapping[Key, str]) -> Iterator[str]:
    for key, state in states.items():
        if state == "failed":
            yield f"failed: {key[0]} {key[1]}: {last_error(run.log(key))} ({run.log(key)})"


def last_error(log: Path) -> str:
    """Return the last line of the last attempt in a log that reads like an error, or else its last line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    begins = max((place for place, line in enumerate(lines) if line.startswith("== attempt")), default=-1)
    attempt = [line for line in lines[begins + 1 :] if not line.startswith("== ")]
    errors = [line for line in attempt if _ERROR.search(line)]
    return (errors or attempt or ["ended without a word"])[-1]
