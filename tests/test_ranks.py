"""Several processes that work as one."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from pushpull_conv import InputError, Results
from pushpull_conv.ranks import Ranks, join, launch, launched


@given(count=st.integers(1, 9), tasks=st.integers(0, 40))
def test_every_task_is_one_ranks_and_the_shares_are_even(count, tasks):
    shares = [Ranks(rank, count).share(range(tasks)) for rank in range(count)]
    assert sorted(task for share in shares for task in share) == list(range(tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_started_alone_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (join(), launched()) == (Ranks(0, 1), False)


@pytest.mark.parametrize("devices", [0, 10_000])
def test_more_devices_than_there_are_are_refused(devices):
    with pytest.raises(InputError, match=f"--devices {devices} .*this machine has"):
        launch([sys.executable, "-c", "raise AssertionError"], devices)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_when_one_process_fails_the_others_are_stopped():
    command = "import os, time, sys; time.sleep(60) if os.environ['RANK'] == '0' else sys.exit(7)"
    assert launch([sys.executable, "-c", command], 2) == 7


TOGETHER = """
import sys, torch
from pushpull_conv.models import Classifier
from pushpull_conv.ranks import join
from pushpull_conv.training.shared_statistics import with_shared_statistics
sys.path.insert(0, sys.argv[1])
from test_ranks import network, batch
from torch.nn.functional import cross_entropy
ranks = join()
classifier = with_shared_statistics(Classifier(network(), (0.5,) * 3, (0.25,) * 3), torch.device("cpu"))
parallel = torch.nn.parallel.DistributedDataParallel(classifier.network)
images, labels = (ranks.share(values) for values in batch())
cross_entropy(parallel(torch.stack(images)), torch.stack(labels)).backward()
assert ranks.gather(ranks.rank) == [0, 1] and ranks.by_first(lambda: ranks.rank) == 0
if ranks.is_first:
    gradients = {name: value.grad for name, value in classifier.network.named_parameters()}
    torch.save({**gradients, **dict(classifier.network.named_buffers())}, sys.argv[2])
ranks.wait()
"""


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 9, 9, generator=generator), torch.randint(0, 3, (8,), generator=generator)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_ranks_have_the_gradients_and_statistics_of_one(tmp_path):
    here = str(Path(__file__).parent)
    assert launch([sys.executable, "-c", TOGETHER, here, str(tmp_path / "two.pt")], 2) == 0
    alone = network()
    images, labels = batch()
    cross_entropy(alone(images), labels).backward()
    expected = {name: value.grad for name, value in alone.named_parameters()} | dict(alone.named_buffers())
    found = torch.load(tmp_path / "two.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), atol=1e-6), name


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_processes_learn_and_count_as_one(tmp_path):
    """Large batches and a small rate: else rounding alone, which grows with every step, would part the curves."""
    gentle = ["training.epochs=2", "training.batch_size=480", "variants=[baseline]"]
    gentle.append("training.learning_rate={start: 1.0e-3, top: 1.0e-3, end: 1.0e-3}")
    command = [sys.executable, "-m", "pushpull_conv.cli", "run", "quickstart"]
    command += [word for setting in gentle for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        call = [*command, "--out", str(tmp_path / devices), "--devices", devices]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 2/2") == 1
    curves = [
        [float(row["loss"]) for row in csv.DictReader((tmp_path / devices / "baseline" / "metrics.csv").open())]
        for devices in ("1", "2")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=2e-3)

    # Of one model the counts are the same to the last image, however the cells were shared out.
    alone = tmp_path / "alone"
    call = [sys.executable, "-m", "pushpull_conv.cli", "evaluate", str(tmp_path / "2" / "baseline")]
    call += ["--data-set", "digits", "--out", str(alone), "--batch-size", "360", "--label", "baseline"]
    subprocess.run(call, env=environment, capture_output=True, check=True)
    together = Results.load(tmp_path / "2" / "baseline" / "results.json")
    assert Results.load(alone / "results.json") == together


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_an_error_that_all_processes_meet_is_told_once(tmp_path):
    call = [sys.executable, "-m", "pushpull_conv.cli", "train", "cifar10-resnet20", "--data", str(tmp_path / "none")]
    done = subprocess.run([*call, "--out", str(tmp_path / "run"), "--devices", "2"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "data folder" in done.stderr
