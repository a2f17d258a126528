"""Submitting what is missing of a run, and nothing twice."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pushpull_conv.cluster import slurm
from pushpull_conv.cluster.scripts import Resources, render, script_file
from pushpull_conv.cluster.tasks import Key, Run, Task, tasks
from pushpull_conv.files import alone, writable_folder, write_text


@dataclasses.dataclass(frozen=True)
class Batch:
    """Tasks of one job array that are submitted by one call, because they wait for the same.

    Args:
        array: The array's name.
        numbers: The tasks' numbers.
        waits_for: The unfinished tasks for which all of them wait.
    """

    array: str
    numbers: tuple[int, ...]
    waits_for: tuple[Key, ...]

    @property
    def keys(self) -> set[Key]:
        """The tasks."""
        return {(self.array, number) for number in self.numbers}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a submission does.

    Args:
        batches: What is submitted, in order.
        withdrawn: Tasks that wait for something that failed, taken out of the queue and submitted again.
        queued: The number of tasks that are in the queue and stay there.
        done: The number of tasks that are done.
    """

    batches: tuple[Batch, ...]
    withdrawn: tuple[Key, ...]
    queued: int
    done: int


def plan(all_tasks: Sequence[Task], queue: Mapping[Key, slurm.Queued]) -> Plan:
    """Decide what to submit: each task that is neither done nor in the queue, and what waits for such a task.

    Args:
        all_tasks: The tasks of a run, each after those that it waits for.
        queue: Those in the queue.
    """
    missing: dict[Key, Task] = {}
    for task in (task for task in all_tasks if not task.done):
        place = queue.get(task.key)
        if place is None or (not place.running and any(key in missing for key in task.waits_for)):
            missing[task.key] = task
    done = {task.key for task in all_tasks if task.done}
    batches = []
    waits = [(task.key[0], tuple(key for key in task.waits_for if key not in done), task) for task in missing.values()]
    for (array, waits_for), members in itertools.groupby(waits, key=lambda entry: entry[:2]):
        batches.append(Batch(array, tuple(task.key[1] for _, _, task in members), waits_for))
    withdrawn = tuple(key for key in missing if key in queue)
    return Plan(tuple(batches), withdrawn, len(queue.keys() - done) - len(withdrawn), len(done))


def submit(run: Run, resources: Resources, *, python: str, data: Path | None) -> Iterator[str]:
    """Write the scripts of a run and submit what is missing; give a line for each job.

    Safe to repeat: what is done or in the queue is left alone.

    Args:
        run: The run.
        resources: What each task asks for.
        python: The interpreter that has this package, at the same place on the cluster's nodes.
        data: Folder of the data set.

    Raises:
        InputError: SLURM is not here or refuses, the folder cannot be written, or another submission is going on.
    """
    writable_folder(run.cluster / "logs")
    with alone(run.cluster / "lock", f"'{run.folder}' is being submitted by another call; wait until it is through"):
        queue = slurm.queue().get(run.cluster, {})
        all_tasks = tasks(run)  # after the queue: what ends in between is done, and would else be in neither
        todo = plan(all_tasks, queue)
        slurm.cancel([f"{queue[key].job}_{key[1]}" for key in todo.withdrawn])
        jobs = {key: place.job for key, place in queue.items() if key not in todo.withdrawn}
        for batch in todo.batches:
            script = script_file(run, batch.array)
            write_text(script, _script(run, batch.array, all_tasks, resources, python, data))
            job = slurm.submit(_words(run, batch, resources, _after(batch, todo.batches, jobs)))
            jobs |= dict.fromkeys(batch.keys, job)
            yield f"{batch.array}: {len(batch.numbers)} submitted as job {job}"
    yield f"{todo.queued} in the queue before, {todo.done} done"


def dry_run(run: Run, resources: Resources, *, python: str, data: Path | None) -> Iterator[str]:
    """Give the text of the scripts and of the commands with which `submit` would submit what is missing."""
    known, unknown = slurm.queue_if_known()
    queue = (known or {}).get(run.cluster, {})
    all_tasks = tasks(run)  # after the queue, as in `submit`
    if unknown:
        yield f"# as if nothing were in the queue, which is not known: {unknown}"
    todo = plan(all_tasks, queue)
    jobs = {key: place.job for key, place in queue.items() if key not in todo.withdrawn}
    if todo.withdrawn:
        yield shlex.join(["scancel", *(f"{queue[key].job}_{key[1]}" for key in todo.withdrawn)])
    for batch in todo.batches:
        yield f"# {script_file(run, batch.array)}"
        yield _script(run, batch.array, all_tasks, resources, python, data)
    for batch in todo.batches:
        jobs |= dict.fromkeys(batch.keys, f"<{batch.array}>")
        *options, script = _words(run, batch, resources, _after(batch, todo.batches, jobs))
        yield f"{' '.join(options)} {shlex.quote(script)}"  # in the options <JOB> stands for a number yet unknown


def _script(
    run: Run, array: str, all_tasks: Sequence[Task], resources: Resources, python: str, data: Path | None
) -> str:
    members = sorted((task for task in all_tasks if task.key[0] == array), key=lambda task: task.key)
    return render(run, array, members, resources, python=python, data=data)


def _words(run: Run, batch: Batch, resources: Resources, after: Sequence[str]) -> list[str]:
    return slurm.sbatch_words(script_file(run, batch.array), batch.numbers, at_once=resources.at_once, after=after)


def _after(batch: Batch, batches: Sequence[Batch], jobs: Mapping[Key, str]) -> list[str]:
    """The jobs for which a batch waits: a new one as a whole where it waits for all of it, else task by task."""
    whole = [other for other in batches if other.keys <= set(batch.waits_for)]
    in_whole = set[Key]().union(*(other.keys for other in whole))
    rest = [f"{jobs[key]}_{key[1]}" for key in batch.waits_for if key not in in_whole]
    return [*(jobs[next(iter(other.keys))] for other in whole), *rest]
