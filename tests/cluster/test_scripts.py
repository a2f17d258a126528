"""The scripts: their text, and what bash makes of them."""

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pushpull_conv import InputError
from pushpull_conv.cluster.scripts import RESTARTS, Resources, render
from pushpull_conv.cluster.tasks import Run, tasks

GOLDEN = Path(__file__).parent / "golden"
LARGE = Resources(
    partition="gpu",
    account="vision",
    time="4:00:00",
    gpus="a100:4",
    cpus=32,
    memory="64G",
    setup=("module load cuda", "source env/bin/activate"),
    sbatch=("--constraint=nvlink", "--mail-type=FAIL"),
)


def script(run, array, resources=None, python="python", data=None):
    members = sorted((task for task in tasks(run) if task.key[0] == array), key=lambda task: task.key)
    return render(run, array, members, resources or Resources(), python=python, data=data)


@pytest.mark.parametrize(
    ("name", "array", "resources", "data"),
    [
        ("train.sh", "train", LARGE, Path("/data/digits")),
        ("benchmark-PP3.sh", "benchmark-PP3", LARGE, Path("/data/digits")),
        ("compare.sh", "compare", Resources(), None),
    ],
)
def test_the_text_is_as_recorded(name, array, resources, data):
    """To record anew after a change that is meant: write what is printed to the golden file."""
    run = Run(Path("/runs/quickstart"), "quickstart", 12, {"baseline": None, "PP3": None})
    text = script(run, array, resources, "/opt/env/bin/python", data)
    print(text)
    assert text == (GOLDEN / name).read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_folder_with_spaces_and_percent_signs_is_kept(tmp_path):
    run = Run(tmp_path / "50% of it", "small", 3, {"PP3": None})
    text = script(run, "train", python="echo")
    assert f'--output="{tmp_path}/50%% of it/cluster/logs/train-%a.log"' in text
    assert f"--out {tmp_path}/50% of it --variant PP3" in attempt(text, tmp_path).output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpus": "0"}, ["--gpus '0'", "a100:2"]),
        ({"gpus": "two"}, ["--gpus 'two'"]),
        ({"partition": "a b"}, ["--partition 'a b'"]),
        ({"time": "1:00\n#SBATCH --x"}, ["--time", "one word"]),
        ({"sbatch": ("-C a100",)}, ["--sbatch '-C a100'", "--constraint"]),
    ],
)
def test_what_cannot_be_an_option_is_refused(changes, words):
    with pytest.raises(InputError) as caught:
        Resources(**changes)
    assert all(word in str(caught.value) for word in words)


@dataclasses.dataclass
class Attempt:
    status: int
    output: str
    requeued: list[str]


def attempt(text, folder, restarts=0, signal_after=None):
    """Run a script as SLURM would run task 0 of job 7, with a `scontrol` that only says what it was asked."""
    scontrol = folder / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {folder}/requeued\n')
    scontrol.chmod(0o755)
    (folder / "script.sh").write_text(text)
    environment = {
        **os.environ,
        "PATH": f"{folder}:/usr/bin:/bin",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    with subprocess.Popen(
        ["bash", folder / "script.sh"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if signal_after:
            while not signal_after.exists():
                time.sleep(0.02)
            process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=30)
    asked = folder / "requeued"
    return Attempt(process.returncode, output, asked.read_text().splitlines() if asked.exists() else [])


def program(folder, body):
    """A stand-in for the interpreter."""
    file = folder / "python"
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)
    return str(file)


def test_a_task_runs_the_command_of_its_number(run, tmp_path):
    for number, variant in enumerate(run.teachers):
        text = script(run, "train", python="echo", data=Path("data"))
        text = text.replace("SLURM_ARRAY_TASK_ID]", f"SLURM_ARRAY_TASK_ID+{number}]")
        done = attempt(text, tmp_path)
        command = f"-m pushpull_conv.cli train {run.folder}/recipe.yaml --out {run.folder} --data {Path.cwd()}/data"
        assert f"{command} --variant {variant}\n" in done.output
        assert (done.status, done.requeued) == (0, [])
    first = attempt(script(run, "benchmark-PP3", python="echo"), tmp_path).output
    assert "benchmark " in first
    assert "--variant PP3 --corruption clean --corruption gaussian_noise\n" in first


@pytest.mark.parametrize(
    ("body", "restarts", "status", "requeued"),
    [
        ("exit 1", 0, 1, ["requeue 7_0"]),
        ("exit 1", RESTARTS - 1, 1, ["requeue 7_0"]),
        ("exit 1", RESTARTS, 1, []),
        ("kill -KILL $$", 0, 137, ["requeue 7_0"]),
        ("exit 2", 0, 2, []),
    ],
)
def test_what_may_pass_goes_back_to_the_queue_alone(run, tmp_path, body, restarts, status, requeued):
    done = attempt(script(run, "train", python=program(tmp_path, body)), tmp_path, restarts)
    assert (done.status, done.requeued) == (status, requeued)


@pytest.mark.parametrize(("finished", "requeued"), [("last.ckpt", ["requeue 7_0"]), ("metrics.csv", [])])
def test_at_the_time_limit_a_task_that_got_on_is_queued_again_however_often(run, tmp_path, finished, requeued):
    folder = run.folder / "baseline"
    folder.mkdir(parents=True)
    stale = folder / "best.ckpt"
    stale.write_text("")
    os.utime(stale, (1, 1))
    body = f"sleep 0.1; touch {folder}/{finished}; exec sleep 30"
    text = script(run, "train", python=program(tmp_path, body))
    done = attempt(text, tmp_path, restarts=50, signal_after=folder / finished)
    assert (done.status, done.requeued) == (128 + signal.SIGTERM, requeued)


@pytest.mark.parametrize(
    ("array", "made", "requeued"),
    [
        ("train", "PP3/last.ckpt", []),
        ("benchmark-PP3", "PP3/cells/gaussian_noise-2.json", ["requeue 7_0"]),
        ("benchmark-PP3", "PP3/epochs/002/cells/gaussian_noise-2.json", ["requeue 7_0"]),
        ("benchmark-PP3", "PP3/cells/fog-2.json", []),
        ("benchmark-PP3", "baseline/cells/gaussian_noise-2.json", []),
    ],
)
def test_what_other_tasks_got_done_at_the_time_limit_does_not_count(run, tmp_path, array, made, requeued):
    """The first task trains the baseline, or counts the clean images and Gaussian noise."""
    file = run.folder / made
    file.parent.mkdir(parents=True)
    text = script(run, array, python=program(tmp_path, f"sleep 0.1; touch {file}; exec sleep 30"))
    assert attempt(text, tmp_path, restarts=50, signal_after=file).requeued == requeued


@pytest.mark.parametrize("sign", ['"', "\\", "\n"])
def test_a_folder_whose_logs_slurm_could_not_write_is_refused(tmp_path, sign):
    with pytest.raises(InputError, match="has a sign that SLURM cannot write a log to; choose another --out"):
        script(Run(tmp_path / f"a{sign}b", "small", 3, {"PP3": None}), "train")


def test_setup_that_fails_ends_the_task(run, tmp_path):
    text = script(run, "train", Resources(setup=("false", "echo never")), python="echo")
    done = attempt(text, tmp_path)
    assert (done.status, done.requeued) == (1, [])
    assert "never" not in done.output
    assert "pushpull_conv" not in done.output


def test_a_task_leaves_the_cores_to_its_processes(run, tmp_path):
    text = script(run, "train", Resources(cpus=8, gpus="4"), python=program(tmp_path, "echo threads $OMP_NUM_THREADS"))
    assert "threads 2\n" in attempt(text, tmp_path).output
