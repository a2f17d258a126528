"""The quickstart under SLURM itself: a task is killed and goes on, others are cancelled and submitted again."""

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from slurm_cluster import cluster, missing

from pushpull_conv import CORRUPTIONS, Results
from pushpull_conv.cluster import slurm as commands

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]
EPOCHS = 9
LEFT = ("fog", "brightness", "contrast")
"""The corruptions that SLURM counts for the second variant; the others are counted here, which is quicker."""


@pytest.fixture(scope="module")
def slurm_conf(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("slurm")) as configuration:
        yield configuration


@pytest.fixture
def run_folder(slurm_conf, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "quickstart"


def wait(until, seconds=600):
    """Wait for something to become true, and return it."""
    end = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.25)
    return found


def processes_of(*words):
    """The processes that run a command of ours with these words."""
    found = subprocess.run(["pgrep", "-f", "pushpull_conv.cli.*" + ".*".join(words)], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def test_a_killed_task_goes_on_and_only_what_is_missing_is_submitted(pushpull, run_folder):
    def called(*words):
        code, out, err = pushpull(*words)
        assert (code, err) == (0, "")
        return out

    # Many short epochs: a tenth of the arithmetic of a ResNet-20, and time to kill the training before its last.
    recipe = ["quickstart", "--set", f"training.epochs={EPOCHS}", "--set", "training.batch_size=128"]
    recipe += ["--set", "model.name=timm:test_resnet"]
    called("train", *recipe, "--variant", "baseline")
    called("benchmark", *recipe, "--variant", "baseline")
    out = called("submit", *recipe, "--cpus", "1")
    assert re.fullmatch(
        r"train: 1 submitted.*\nbenchmark-PP3: 15 .*\ncompare: 1 .*\n0 in the queue before, 16 done\n", out
    )

    # Killed as hard as can be when its first epoch is whole, the training is queued again by itself, and resumes.
    wait((run_folder / "PP3" / "last.ckpt").exists)
    (victim,) = processes_of(f"train {run_folder}", "PP3")
    os.kill(victim, signal.SIGKILL)
    log = run_folder / "cluster" / "logs" / "train-1.log"
    wait(lambda: "back to the queue" in log.read_text())
    assert "17 in the queue before, 16 done" in called("submit", *recipe, "--cpus", "1")
    wait((run_folder / "PP3" / "model.safetensors").exists)
    first, second = log.read_text().split("== attempt 2")
    assert f"epoch 1/{EPOCHS} " in first
    assert "Killed" in first
    assert f"epoch {EPOCHS}/{EPOCHS} " in second
    assert f"epoch 1/{EPOCHS} " not in second
    with (run_folder / "PP3" / "metrics.csv").open() as rows:
        assert [row["epoch"] for row in csv.DictReader(rows)] == [str(epoch + 1) for epoch in range(EPOCHS)]

    # Cancelled, the benchmark is gone, and the report that waited for it; what is counted is not submitted again.
    scripts = run_folder / "cluster"
    jobs = {place.job for key, place in queued(scripts).items() if key[0] == "benchmark-PP3"}
    subprocess.run(["scancel", *jobs], check=True)
    wait(lambda: not queued(scripts))
    counted = [word for name in ("clean", *CORRUPTIONS) if name not in LEFT for word in ("--corruption", name)]
    called("benchmark", *recipe, "--variant", "PP3", *counted)
    status = called("status")
    assert "61 of 76" in status
    assert "report: not yet" in status
    out = called("submit", *recipe, "--cpus", "1")
    assert re.fullmatch(r"benchmark-PP3: 3 submitted.*\ncompare: 1 .*\n0 in the queue before, 29 done\n", out)
    assert "report: queued" in called("status")
    wait(lambda: not queued(scripts))
    assert "33 tasks: 33 done; report: done" in called("status"), logs(run_folder)
    results = Results.load(run_folder / "PP3" / "results.json")
    assert len(results.cells) == 75
    assert "PP3" in (run_folder / "report" / "index.html").read_text()


def queued(scripts: Path) -> dict[commands.Key, commands.Queued]:
    return commands.queue().get(scripts, {})


def logs(run_folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(run_folder.glob("cluster/logs/*")))


def test_a_partition_that_does_not_exist_is_refused_in_one_line_of_sbatch(pushpull, run_folder):
    code, _, err = pushpull("submit", "quickstart", "--partition", "nowhere")
    assert code == 2
    assert err == (
        "error: sbatch: invalid partition specified: nowhere; "
        "Batch job submission failed: Invalid partition name specified\n"
    )
    assert queued(run_folder / "cluster") == {}


def test_wrong_input_is_not_tried_again_and_its_error_is_told(pushpull, run_folder):
    """The recipe is there when the run is submitted and gone when its tasks begin."""
    gone = ["--sbatch", f"--chdir={run_folder}", "--setup", "mv recipe.yaml moved || true"]
    code, _, err = pushpull("submit", "quickstart", *gone)
    assert (code, err) == (0, "")
    wait(lambda: not queued(run_folder / "cluster"))
    (run_folder / "moved").rename(run_folder / "recipe.yaml")
    _, out, _ = pushpull("status")
    assert "2 failed, 31 not submitted; report: not yet" in out
    failures = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 2
    assert all("recipe.yaml" in line for line in failures)
    assert "back to the queue" not in logs(run_folder)
