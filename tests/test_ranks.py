"""Several processes that work as one."""

import contextlib
import csv
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

from pushpull_conv import InputError, Results
from pushpull_conv.data import ImageSet, default_workers, load_images
from pushpull_conv.files import csv_rows
from pushpull_conv.ranks import Ranks, joined, launch, launched

SMALL_MODEL = "model.name=timm:test_resnet"
"""Takes a tenth of the arithmetic of a ResNet-20."""


@given(count=st.integers(1, 9), tasks=st.integers(0, 40))
def test_every_task_is_one_ranks_and_the_shares_are_even(count, tasks):
    shares = [Ranks(rank, count).share(range(tasks)) for rank in range(count)]
    assert sorted(task for share in shares for task in share) == list(range(tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_started_alone_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with joined() as ranks:
        assert (ranks, launched()) == (Ranks(0, 1), False)


@pytest.mark.parametrize("devices", [0, 10_000])
def test_devices_that_are_not_there_are_refused(devices):
    with pytest.raises(InputError, match=rf"--devices {devices} is not from 1 to \d+: this machine has"):
        launch([sys.executable, "-c", "raise AssertionError"], devices)


def test_cores_that_a_cluster_gave_to_others_are_not_shared_out(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 8, 9})
    assert [default_workers(ranks) for ranks in (1, 2, 4)] == [3, 1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"from 1 to 3: this machine has 3 processor cores"):
        launch([sys.executable, "-c", "raise AssertionError"], 4)


# Torch gives up after half an hour, on GPUs after ten minutes; here after one second unless it is told otherwise.
SLOW = """
import datetime, time
from torch.distributed import distributed_c10d
distributed_c10d.default_pg_timeout = datetime.timedelta(seconds=1)
from pushpull_conv.ranks import joined
with joined() as ranks:
    time.sleep(0 if ranks.is_first else 4)
    ranks.wait()
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_process_waits_for_another_longer_than_torch_would():
    assert launch([sys.executable, "-c", SLOW], 2) == 0


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_when_one_process_fails_the_others_are_stopped():
    command = "import os, time, sys; time.sleep(60) if os.environ['RANK'] == '0' else sys.exit(7)"
    assert launch([sys.executable, "-c", command], 2) == 7


# Two processes that tell their numbers, one of which does not end when asked to.
LAUNCHER = """
import sys
from pathlib import Path
from pushpull_conv import ranks
ranks._GRACE_SECONDS = 1
program = "import os, pathlib, signal, sys, time; rank = os.environ['RANK'];"
program += "signal.signal(signal.SIGTERM, signal.SIG_IGN if rank == '1' else signal.SIG_DFL);"
program += "pathlib.Path(sys.argv[1], rank).touch(); time.sleep(60)"
sys.exit(ranks.launch([sys.executable, "-c", program, sys.argv[1]], 2))
"""


@contextlib.contextmanager
def started(*call, until):
    """Start a program in a process group of its own, wait for its files, and leave none of the group running."""
    program = subprocess.Popen(call, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 240
        while not all(file.exists() for file in until):
            assert program.poll() is None, "ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_sigterm_leaves_no_process_running_not_even_one_that_waits_for_ever(tmp_path):
    began = [tmp_path / rank for rank in "01"]
    with started(sys.executable, "-c", LAUNCHER, str(tmp_path), until=began) as launcher:
        launcher.terminate()
        assert launcher.wait(30) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.killpg(launcher.pid, 0)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_training_of_two_processes_ends_when_it_is_terminated(tmp_path):
    """Under Lightning's own handler each waits for the other for ever."""
    endless = ["training.epochs=10000", "training.batch_size=480", "variants=[baseline]", SMALL_MODEL]
    call = [sys.executable, "-m", "pushpull_conv.cli", "train", "quickstart", "--out", str(tmp_path)]
    call += [word for setting in endless for word in ("--set", setting)]
    with started(*call, "--devices", "2", until=[tmp_path / "baseline" / "last.ckpt"]) as training:
        training.terminate()
        assert training.wait(60) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.killpg(training.pid, 0)
    assert not (tmp_path / "baseline" / "model.safetensors").exists()


BATCHES = [(torch.float32, 1e-6, 8), (torch.float64, 1e-14, 8), (torch.float64, 1e-14, 3)]
"""The type, how far two ranks may be from one, and the number of images, which two need not have equal parts of."""
# A `DistributedDataParallel` that is the first to import torch._dynamo stays for ever; training has imported it before.
TOGETHER = """
import sys, torch, torch._dynamo
from pushpull_conv.models import Classifier
from pushpull_conv.ranks import joined
from pushpull_conv.training.shared_statistics import with_shared_statistics
sys.path.insert(0, sys.argv[1])
import test_ranks
from test_ranks import network, batch
from torch.nn.functional import cross_entropy

def learn(ranks, dtype, count):
    classifier = with_shared_statistics(Classifier(network().to(dtype), (0.5,) * 3, (0.25,) * 3), torch.device("cpu"))
    parallel = torch.nn.parallel.DistributedDataParallel(classifier.network)
    whole = batch(dtype, count)
    images, labels = (torch.stack(ranks.share(values)) for values in whole)
    share = len(labels) * ranks.count / len(whole[1])
    (cross_entropy(parallel(images), labels) * share).backward()
    assert ranks.gather(ranks.rank) == [0, 1] and ranks.by_first(lambda: ranks.rank) == 0
    if ranks.is_first:
        gradients = {name: value.grad for name, value in classifier.network.named_parameters()}
        torch.save({**gradients, **dict(classifier.network.named_buffers())}, f"{sys.argv[2]}/{dtype}-{count}.pt")
    assert test_ranks.threads_of_the_group()

with joined() as ranks:
    for dtype, _, count in test_ranks.BATCHES:
        learn(ranks, dtype, count)
assert not torch.distributed.is_initialized()
assert not test_ranks.threads_of_the_group()
"""


# A refusal while the processes are in use.
REFUSED = """
import atexit, pathlib, sys, torch, torch._dynamo
from pushpull_conv import InputError, cli
from pushpull_conv.ranks import joined
sys.path.insert(0, sys.argv[1])
import test_ranks

def command():
    with joined():
        parallel = torch.nn.parallel.DistributedDataParallel(test_ranks.network())
        assert test_ranks.threads_of_the_group()
        raise InputError("told")

atexit.register(lambda: pathlib.Path(sys.argv[2]).write_text(str(test_ranks.threads_of_the_group())))
cli.app = command
cli.main()
"""


def threads_of_the_group():
    """Torch's and Gloo's threads in this process, one of which can abort it if Python ends meanwhile."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def batch(dtype, count):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 9, 9, generator=generator).to(dtype)
    return images, torch.randint(0, 3, (count,), generator=generator)


@pytest.fixture(scope="module")
def learned_by_two(tmp_path_factory):
    """The folder of what two ranks have learned from each of the batches."""
    folder = tmp_path_factory.mktemp("two")
    assert launch([sys.executable, "-c", TOGETHER, str(Path(__file__).parent), str(folder)], 2) == 0
    return folder


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize(("dtype", "tolerance", "count"), BATCHES)
def test_two_ranks_have_the_gradients_and_statistics_of_one(learned_by_two, dtype, tolerance, count):
    alone = network().to(dtype)
    images, labels = batch(dtype, count)
    cross_entropy(alone(images), labels).backward()
    expected = {name: value.grad for name, value in alone.named_parameters()} | dict(alone.named_buffers())
    found = torch.load(learned_by_two / f"{dtype}-{count}.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=0, atol=tolerance), name


# An epoch of one step, of whose batch some images cannot be read.
SKIPPING = """
import sys
sys.path.insert(0, sys.argv[1])
import test_ranks
from pathlib import Path
from pushpull_conv.ranks import joined
with joined() as ranks:
    test_ranks.learn_with_gaps(Path(sys.argv[2]), ranks)
"""
GAPS = range(0, 64, 3)


class WithGaps(ImageSet):
    """Of its pictures some cannot be read."""

    def picture(self, place):
        if place in GAPS:
            raise InputError(f"image {place} is damaged")
        return super().picture(place)


def learn_with_gaps(folder, ranks):
    """A step by all images of a batch that can be read; a variant that changes pictures has them read one by one."""
    from pushpull_conv.training.fit import fit  # here, as other processes import this module and train nothing
    from pushpull_conv.training.recipe import load_recipe

    gentle = "training.learning_rate={start: 1.0e-3, top: 1.0e-3, end: 1.0e-3}"
    settings = [gentle, "training.epochs=1", "training.batch_size=64", "training.precision=64-true", SMALL_MODEL]
    settings += ["data.unreadable=skip", "variants=[TrivialAug]", "baseline=TrivialAug"]
    recipe = load_recipe("quickstart", settings)
    few, test = load_images("digits", "train")[:64], load_images("digits", "test")
    damaged = WithGaps(*(getattr(few, field.name) for field in dataclasses.fields(few)))
    console = Console(file=io.StringIO())
    fit(recipe, recipe.variants[0], damaged, test[:40], folder, console=console, ranks=ranks)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_processes_that_skip_images_learn_as_one(tmp_path):
    """Their parts of the batch differ in size; in float64, as weights and statistics are compared."""
    assert launch([sys.executable, "-c", SKIPPING, str(Path(__file__).parent), str(tmp_path / "2")], 2) == 0
    (tmp_path / "1").mkdir()
    learn_with_gaps(tmp_path / "1", Ranks())
    alone, two = (tmp_path / name for name in "12")
    assert len((two / "unreadable.csv").read_text().splitlines()) == 1 + len(GAPS)
    for name, value in torch.load(alone / "last.ckpt", weights_only=True)["state_dict"].items():
        found = torch.load(two / "last.ckpt", weights_only=True)["state_dict"][name]
        assert torch.allclose(found.double(), value.double(), rtol=1e-9, atol=1e-9), name
    losses = [float(csv_rows(folder / "metrics.csv")[0]["loss"]) for folder in (alone, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.skipif((os.cpu_count() or 1) < 2 or sys.platform != "linux", reason="needs two cores, and Linux")
def test_a_process_that_is_refused_ends_with_none_of_the_groups_threads(tmp_path, capfd):
    call = [sys.executable, "-c", REFUSED, str(Path(__file__).parent), str(tmp_path / "threads.txt")]
    assert launch(call, 2) == 2
    assert (tmp_path / "threads.txt").read_text() == "[]"
    assert "error: told" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_processes_learn_and_count_as_one(pushpull, tmp_path):
    """In float64, with few steps and a small rate: rounding alone grows with every step and would part the weights."""
    gentle = ["training.epochs=1", "training.batch_size=120", "variants=[baseline]", "data.fraction=0.25", SMALL_MODEL]
    gentle += ["training.learning_rate={start: 1.0e-3, top: 1.0e-3, end: 1.0e-3}", "training.precision=64-true"]
    words = [word for setting in gentle for word in ("--set", setting)]
    code, out, err = pushpull("train", "quickstart", *words, "--out", tmp_path / "1", "--devices", "1")
    assert (code, out.count("epoch 1/1")) == (0, 1), err
    call = [sys.executable, "-m", "pushpull_conv.cli", "run", "quickstart", *words]
    call += ["--out", str(tmp_path / "2"), "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("epoch 1/1")) == (0, 1), done.stderr
    assert "baseline  76 cells benchmarked" in done.stdout
    curves = [
        [float(row["loss"]) for row in csv.DictReader((tmp_path / devices / "baseline" / "metrics.csv").open())]
        for devices in ("1", "2")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)  # logged in float32
    last = [tmp_path / devices / "baseline" / "last.ckpt" for devices in ("1", "2")]
    weights = [torch.load(file, weights_only=True)["state_dict"] for file in last]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.allclose(value.double(), weights[1][name].double(), rtol=1e-9, atol=1e-9), name

    # Of one model the counts are the same to the last image, however the cells were shared out.
    alone = tmp_path / "alone"
    call = ["evaluate", tmp_path / "2" / "baseline", "--data-set", "digits", "--out", alone]
    assert pushpull(*call, "--batch-size", "360", "--label", "baseline")[0] == 0
    together = Results.load(tmp_path / "2" / "baseline" / "results.json")
    assert Results.load(alone / "results.json") == together


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_an_error_that_all_processes_meet_is_told_once(tmp_path):
    call = [sys.executable, "-m", "pushpull_conv.cli", "train", "cifar10-resnet20", "--data", str(tmp_path / "none")]
    done = subprocess.run([*call, "--out", str(tmp_path / "run"), "--devices", "2"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "data folder" in done.stderr
