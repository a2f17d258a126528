"""The bar that the terminal shows while something long is done."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column


@contextlib.contextmanager
def progress_bar(
    console: Console, label: str = "", done: str = "", whole: int | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with what is being done and the time left; nothing of it remains.

    Args:
        console: Where to draw; the bar shows on terminals only.
        label: Whose bar it is.
        done: What it counts (``"cells benchmarked"``): a line with the count stays at the end. Empty: none does.
        whole: The count of that line, where other processes did a part of it; None: that of the bar.

    Yields:
        A function that is told how many are done, of how many, and what is being done.
    """
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),  # the only one to give way in a narrow terminal
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[state]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    disable = not console.is_terminal  # elsewhere it would leave an empty line
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        task = progress.add_task(label, total=None, state="")

        def show(completed: int, total: int, state: str) -> None:
            progress.update(task, completed=completed, total=total, state=state)

        yield show
    if done:
        count = progress.tasks[task].completed if whole is None else whole
        console.print(f"{label}  {count:.0f} {done}", markup=False, highlight=False)
