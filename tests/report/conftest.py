"""Synthetic results: counts that look like a small benchmark's, from a formula, so that tests can recompute them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pushpull_conv.benchmark import Cell, Header, Results
from pushpull_conv.corruptions import FrostTextures
from pushpull_conv.corruptions.spec import CORRUPTIONS, GROUPS, SEVERITIES
from pushpull_conv.functional import pull_kernel
from pushpull_conv.report import Sample, scored, write_report
from pushpull_conv.report.scores import Score, score

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = 200
HARDNESS = dict(zip(CORRUPTIONS, (9, 7, 8, 3, 6, 5, 4, 5, 6, 3, 1, 7, 4, 5, 4), strict=True))

# label: (clean error, share of the rise that is kept, by group)
GAINS = {
    "baseline": (0.155, {}),
    "PP3": (0.160, {"noise": 0.80, "digital": 0.93, "blur": 1.02}),
    "PP5": (0.163, {"noise": 0.72, "digital": 0.90, "blur": 1.04, "weather": 1.03}),
    "PP3-trainable": (0.153, {"noise": 0.86, "digital": 0.96}),
    "PP5-trainable": (0.158, {"noise": 0.78, "digital": 0.92, "weather": 1.02}),
}


def cell(error: float) -> Cell:
    """Return a cell whose top-1 error is close to ``error``, not the same for every class."""
    wrong = [round(PER_CLASS * min(0.95, error * (0.6 + 0.8 * i / (len(CLASSES) - 1)))) for i in range(len(CLASSES))]
    right = tuple(PER_CLASS - count for count in wrong)
    n = PER_CLASS * len(CLASSES)
    return Cell(
        n=n,
        top1=sum(right),
        top5=n - sum(wrong) // 5,
        class_n=(PER_CLASS,) * len(CLASSES),
        class_top1=right,
    )


def build_results(label: str, clean: float = 0.155, kept: dict[str, float] | None = None, *, seed: int = 0) -> Results:
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    cells = {
        (name, severity): cell(
            clean + (kept or {}).get(group_of[name], 1) * 0.09 * math.sqrt(severity) * HARDNESS[name] / 4
        )
        for name in CORRUPTIONS
        for severity in SEVERITIES
    }
    header = Header(
        data="cifar10",
        split="test",
        fingerprint="0f" * 32,
        images=PER_CLASS * len(CLASSES),
        classes=CLASSES,
        suite="cifar10-c",
        revision=1,
        seed=seed,
        frost="procedural-1",
        version="0.1.0",
    )
    return Results(model=label, header=header, clean=cell(clean), cells=cells)


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    return build_results


@pytest.fixture(scope="session")
def results() -> list[Results]:
    return [build_results(label, clean, kept) for label, (clean, kept) in GAINS.items()]


@pytest.fixture(scope="session")
def scores(results) -> list[Score]:
    return [score(result, results[0]) for result in results]


@pytest.fixture(scope="session")
def kernels() -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def stem(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        push = torch.randn(16, 3, 3, 3, generator=generator)
        return push, pull_kernel(push), alpha

    return {
        "PP3": stem(torch.ones(16)),
        "PP5": stem(torch.tensor(1.0)),
        "PP3-trainable": stem(torch.rand(16, generator=generator)),
        "PP5-trainable": stem(torch.rand(16, generator=generator)),
    }


@pytest.fixture(scope="session")
def sample() -> Sample:
    ramp = torch.linspace(0, 255, 32)
    photo = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), ramp.flip(0).expand(32, 32)])
    frost = torch.arange(3 * 200 * 200).reshape(3, 200, 200).to(torch.uint8)
    textures = FrostTextures((frost,), "test")  # the built-in ones take seconds to draw
    return Sample(photo.to(torch.uint8), index=7, seed=0, profile="cifar", frost=textures)


@pytest.fixture(scope="session")
def provenance() -> dict[str, dict[str, str]]:
    shared = {
        "seed": "0",
        "pushpull_conv": "0.1.0",
        "torch": "2.6.0",
        "python": "3.11.7",
        "commit": "0123456789ab",
        "cpu": "Example CPU, 2 cores",
        "accelerator": "none",
        "command": "pushpull run cifar10-resnet20 --data cifar10",
    }
    return {
        label: {**shared, "parameters": str(272474 + 16 * i), "training seconds": str(1800 + 97 * i)}
        for i, label in enumerate(GAINS)
    }


@pytest.fixture(scope="session")
def report(tmp_path_factory, results, kernels, sample, provenance) -> Path:
    """Return the folder of a whole report, written once for all tests."""
    folder = tmp_path_factory.mktemp("run") / "report"
    write_report(
        folder,
        scored(results, "baseline", kernels=kernels, provenance=provenance),
        title="ResNet-20 on CIFAR-10",
        recipes=["name: cifar10-resnet20\nseed: 0\n"],
        kernels=kernels,
        sample=sample,
        provenance=provenance,
    )
    return folder
