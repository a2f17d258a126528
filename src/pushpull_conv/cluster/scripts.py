"""The text of the job arrays' scripts: plain bash, for people to read and to submit by hand if they like."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pushpull_conv.cluster.tasks import TRAIN, Run, Task, variant_of_array
from pushpull_conv.errors import InputError
from pushpull_conv.files import RECIPE_FILE

RESTARTS = 3
"""So often a task that fails goes back to the queue by itself."""
_WARNING_SECONDS = 120  # before the time limit; SLURM may be a minute early


@dataclasses.dataclass(frozen=True)
class Resources:
    """What each task asks of SLURM, in SLURM's own words; None: the cluster's default.

    Args:
        partition: Where to run.
        account: Whom to charge.
        time: Time limit; a task that reaches it goes back to the queue and resumes.
        gpus: ``N`` or ``TYPE:N``: GPUs of a training; a task of the benchmark takes one.
        cpus: Processor cores.
        memory: Memory, as ``32G``.
        at_once: Most tasks of one array that run at the same time.
        setup: Lines of bash before the command.
        sbatch: Further options of sbatch, as ``--constraint=a100``.

    Raises:
        InputError: A value cannot be one of SLURM's.
    """

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    at_once: int | None = None
    setup: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gpus is not None and not re.fullmatch(r"([\w.-]+:)?[1-9]\d*", self.gpus):
            raise InputError(f"--gpus {self.gpus!r} is neither a number nor TYPE:NUMBER; write for example 2 or a100:2")
        for name in ("partition", "account", "time", "memory"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"\S+", value):
                raise InputError(f"--{name} {value!r} must be one word; write it as sbatch takes it")
        for option in self.sbatch:
            if not re.fullmatch(r"--[a-z][^\n]*", option):
                raise InputError(
                    f"--sbatch {option!r} is no long option of sbatch; write for example --constraint=a100"
                )

    @property
    def devices(self) -> int:
        """GPUs of a training, 1 where none are asked for."""
        return int(self.gpus.rpartition(":")[2]) if self.gpus else 1

    def options(self, devices: int) -> list[str]:
        """The options of sbatch for tasks that work on so many GPUs."""
        kind = self.gpus.rpartition(":")[0] if self.gpus else ""
        given = {
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "gres": ":".join(filter(None, ("gpu", kind, str(devices)))) if self.gpus else None,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
        }
        return [*(f"--{name}={value}" for name, value in given.items() if value is not None), *self.sbatch]


def script_file(run: Run, array: str) -> Path:
    """Return where the script of a job array lies."""
    return run.cluster / f"{array}.sh"


def render(
    run: Run, array: str, members: Sequence[Task], resources: Resources, *, python: str, data: Path | None
) -> str:
    """Return the script of a job array, all its tasks in it, whichever of them are submitted.

    Args:
        run: The run.
        array: The array's name.
        members: All its tasks, in the order of their numbers.
        resources: What each asks for.
        python: The interpreter that has this package.
        data: Folder of the data set.
    """
    devices = resources.devices if array == TRAIN else 1
    log = run.log((array, 0)).with_name(f"{array}-%a.log")
    directives = [
        f"--job-name={run.name}-{array}",
        f'--output="{_escaped(run.cluster)}/{log.parent.name}/{log.name}"',
        "--open-mode=append",
        "--requeue",
        "--kill-on-invalid-dep=yes",
        f"--signal=B:USR1@{_WARNING_SECONDS}",
        "--nodes=1",
        "--ntasks=1",
        *resources.options(devices),
    ]
    threads = [f"export OMP_NUM_THREADS={max(1, resources.cpus // devices)}"] if resources.cpus else []
    return _SCRIPT.format(
        directives="\n".join(f"#SBATCH {directive}" for directive in directives),
        options="\n".join(f'    "{task.options}"' for task in members),
        setup="\n".join(["set -e", *threads, *resources.setup, "set +e"]),
        command=shlex.join(_command(run, array, devices, python, data)),
        progress=_progress(run, array),
        restarts=RESTARTS,
    )


def _command(run: Run, array: str, devices: int, python: str, data: Path | None) -> list[str]:
    """What all tasks of an array run, each with its own options after it."""
    variant = variant_of_array(array)
    verb = "benchmark" if variant else TRAIN if array == TRAIN else "run"
    return [
        *(python, "-m", "pushpull_conv.cli", verb, str(run.folder / RECIPE_FILE), "--out", str(run.folder)),
        *(("--data", str(data.resolve())) if data else ()),
        *(("--devices", str(devices)) if devices > 1 else ()),
        *(("--variant", variant) if variant else ()),
    ]


def _progress(run: Run, array: str) -> str:
    """The call of find that shows what a task has finished since it began; its options end with what it works on."""
    folder, last = shlex.quote(str(run.folder)), "${options[SLURM_ARRAY_TASK_ID]##* }"
    if variant := variant_of_array(array):
        return f'find {shlex.quote(str(run.folder / variant))} -newermt "@$began" -path "*/cells/{last}-*"'
    if array == TRAIN:
        return f'find {folder}/"{last}" -newermt "@$began" -name last.ckpt'
    return f'find {folder} -newermt "@$began" \\( -name last.ckpt -o -path "*/cells/*" \\)'


def _escaped(folder: Path) -> str:
    """A folder in a pattern of SLURM's for file names; `InputError` where there is none for it."""
    if set(str(folder)) & set('"\\\n'):
        raise InputError(f"folder {str(folder)!r} has a sign that SLURM cannot write a log to; choose another --out")
    return str(folder).replace("%", "%%")


_SCRIPT = """\
#!/bin/bash
{directives}
# Written by pushpull submit, which gives sbatch the numbers of the tasks to run and what they wait for.
options=(
{options}
)
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID  # SLURM_JOB_ID may stand for the whole array
restarts=${{SLURM_RESTART_COUNT:-0}}
began=$(date +%s)
echo "== attempt $((restarts + 1)) of job $task on $(hostname), $(date -Is)"

{setup}

# Near the time limit the command is stopped, which it may be at any moment: what it has finished is kept.
at_limit=
trap 'at_limit=1; kill "$child"' USR1
{command} ${{options[SLURM_ARRAY_TASK_ID]}} &
child=$!
wait "$child"
status=$?
if [ "$at_limit" ]; then
    wait "$child"
    status=$?
fi
[ "$status" -eq 0 ] && exit

# Status 2 is wrong input, which stays wrong. Anything else may pass: this task alone is queued again, and resumes.
got_on() {{ {progress} | grep -q .; }}
if [ "$status" -ne 2 ] && {{ [ "$restarts" -lt {restarts} ] || {{ [ "$at_limit" ] && got_on; }}; }}; then
    echo "== ended with status $status; back to the queue"
    scontrol requeue "$task"
fi
exit "$status"
"""
