"""The three commands of SLURM that are used: sbatch, squeue and scancel."""

import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pushpull_conv.cluster.tasks import Key
from pushpull_conv.errors import InputError

_NEVER = "DependencyNeverSatisfied"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclasses.dataclass(frozen=True)
class Queued:
    """A task that is in SLURM's queue.

    Args:
        job: Its array's job id.
        running: Whether it has begun.
        reason: Why it has not, in SLURM's word.
    """

    job: str
    running: bool
    reason: str


def available() -> bool:
    """Whether the commands of SLURM are on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def require() -> None:
    """Raise `InputError` where the commands of SLURM are missing."""
    if not available():
        raise InputError(
            "sbatch and squeue are not on this machine; submit from one that has SLURM's commands, "
            "or run everything here: pushpull run"
        )


def queue() -> dict[Path, dict[Key, Queued]]:
    """Return the user's tasks that wait or run, by the folder of their scripts.

    A task is known by its script, so no record of ours can disagree with SLURM's. One that waits for what cannot come
    true any more is as good as gone and is left out.

    Raises:
        InputError: SLURM does not answer.
    """
    lines = _call("squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%r|%o").splitlines()
    found: dict[Path, dict[Key, Queued]] = {}
    for line in lines:
        job, number, state, reason, command = line.split("|", 4)
        script = Path(command)
        if number.isdecimal() and reason != _NEVER:
            found.setdefault(script.parent, {})[script.stem, int(number)] = Queued(job, state not in _WAITING, reason)
    return found


def queue_if_known() -> tuple[dict[Path, dict[Key, Queued]] | None, str]:
    """Return what `queue` returns and ""; where SLURM is not here or does not answer, None and why."""
    if not available():
        return None, "SLURM's commands are not on this machine"
    try:
        return queue(), ""
    except InputError as error:
        return None, str(error)


def sbatch_words(script: Path, numbers: Sequence[int], *, at_once: int | None, after: Sequence[str]) -> list[str]:
    """Return the command that submits some tasks of a script.

    Args:
        script: The script.
        numbers: The tasks' numbers.
        at_once: Most of them that run at the same time.
        after: Jobs, or tasks ``job_number``, that must have succeeded before.
    """
    array = ",".join(map(str, numbers)) + (f"%{at_once}" if at_once else "")
    dependency = [f"--dependency=afterok:{':'.join(after)}"] if after else []
    return ["sbatch", "--parsable", f"--array={array}", *dependency, str(script)]


def submit(words: Sequence[str]) -> str:
    """Run an sbatch command and return the id of its job."""
    return _call(*words).strip().partition(";")[0]


def cancel(tasks: Sequence[str]) -> None:
    """Take tasks, ``job_number``, out of the queue."""
    if tasks:
        _call("scancel", *tasks)


def _call(program: str, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.partition("error: ")[2] or line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(f"{program}: {'; '.join(said) or f'ended with status {done.returncode}'}")
    return done.stdout
