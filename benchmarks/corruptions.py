"""How fast the corruptions are, against the per-image package that people use today.

    python benchmarks/corruptions.py [--sides 32 224] [--rounds 5] [--names fog frost ...]

Both make the same pictures with the same ImageNet constants on one CPU thread: in every round each corrupts its batch
once at each of the five severities, in turn. Printed per corruption: milliseconds of processor time per image, the mean
over severities, as the median over rounds with the middle half of them; and the ratio of the medians. At 32 pixels a
column has the CIFAR constants, which the peers lack; with a GPU, a column has our images per second there. Memory is
what a process of its own needs more than before, over the size of the batch in float32, at its worst severity.

The peers are `imagecorruptions` (the extra `reference`) and, where it can be imported, `torch_uncertainty`, whose
versions of some corruptions are other algorithms.
"""

import argparse
import functools
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import imagecorruptions
import numpy as np
import torch
from machine import hardware, milliseconds, pictures
from torch import Tensor

from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt

try:
    from torch_uncertainty.transforms import corruption as uncertainty
except ImportError:
    uncertainty = None

NAMES = CORRUPTIONS + EXTRA_CORRUPTIONS
BATCH = {32: 256, 224: 16}
PEER_BATCH = {32: 8, 224: 16}  # one picture over and over is quicker: the processor learns its branches
GPU_BATCH = 256


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{hardware()}, one thread of them; {options.rounds} rounds")
    for side in options.sides:
        table(side, options.names, options.rounds)


def table(side: int, names: list[str], rounds: int) -> None:
    """Measure every corruption at one side and print a row each."""
    photographs = pictures(BATCH[side], side)
    gpu = pictures(GPU_BATCH, side).cuda() if torch.cuda.is_available() else None
    timed = ["imagecorruptions", "ours"] + ["ours at CIFAR constants"] * (side == 32)
    timed += ["torch-uncertainty"] * (uncertainty is not None)
    columns = [f"{name}, ms" for name in timed] + ["imagecorruptions / ours", "ours, images/s", "ours, memory"]
    columns += ["ours on the GPU, images/s"] * (gpu is not None)
    print(f"\n{side} x {side} pixels, batches of {BATCH[side]}\n")
    print(f"| corruption | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    medians = []
    for name in names:
        calls = [peer(photographs[: PEER_BATCH[side]], name), ours(photographs, name, "imagenet")]
        calls += [ours(photographs, name, "cifar")] * (side == 32)
        if uncertainty is not None:
            calls.append(second_peer(photographs[: PEER_BATCH[side]], name))
        times = compare(calls, rounds)
        medians.append([middle for _, middle, _ in times])
        cells = [f"{middle:.3g} ({low:.3g}–{high:.3g})" if middle == middle else "fails" for low, middle, high in times]
        cells += [*ratios(*medians[-1][:2]), f"{memory(photographs, name):.1f} x"]
        if gpu is not None:
            cells.append(f"{on_gpu(ours(gpu, name, 'imagenet').run, rounds):,.0f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    sums = [math.fsum(column) for column in zip(*medians, strict=True)]
    cells = [f"{total:.2f}" if total == total else "" for total in sums] + [*ratios(*sums[:2]), ""]
    print(f"| **sum** | {' | '.join(cells)} |{' |' * (gpu is not None)}", flush=True)


def ratios(peer_time: float, our_time: float) -> list[str]:
    """How many times faster ours are, and our images per second."""
    return [f"{peer_time / our_time:.1f} x", f"{1000 / our_time:,.0f}"]


class Call(NamedTuple):
    """Something to measure: ``run(severity)`` corrupts so many images."""

    run: Callable[[int], object]
    images: int


def ours(images: Tensor, name: str, profile: str) -> Call:
    """The whole batch at once."""
    index = torch.arange(len(images), device=images.device)
    return Call(lambda severity: corrupt(images, name, severity, index=index, profile=profile), len(images))


def peer(images: Tensor, name: str) -> Call:
    """One picture after the other."""
    arrays = [np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy()]

    def run(severity: int) -> None:
        for array in arrays:
            imagecorruptions.corrupt(array, corruption_name=name, severity=severity)

    return Call(run, len(arrays))


def second_peer(images: Tensor, name: str) -> Call:
    """One picture after the other, floating point in [0, 1]."""
    names = dict(zip(CORRUPTIONS, uncertainty.corruption_transforms, strict=True))
    names |= {"speckle_noise": uncertainty.SpeckleNoise, "gaussian_blur": uncertainty.GaussianBlur}
    names |= {"saturate": uncertainty.Saturation}
    pictures = list(images / 255)
    transform = functools.cache(lambda severity: names[name](severity))

    def run(severity: int) -> None:
        for picture in pictures:
            transform(severity)(picture)

    return Call(run, len(pictures))


def memory(images: Tensor, name: str) -> float:
    """Peak memory of the worst severity over the size of the batch in float32."""
    batch = images.repeat(-(-(2**24) // images.numel()), 1, 1, 1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(grown, (batch, name)) / (4 * batch.numel())


def grown(images: Tensor, name: str) -> int:
    """Bytes by which this process's peak grows."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for severity in SEVERITIES:
        ours(images, name, "imagenet").run(severity)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def compare(calls: list[Call], rounds: int) -> list[tuple[float, float, float]]:
    """Lower quartile, median and upper quartile of each call's milliseconds per image, after a round of warm-up."""
    times = [[processor_time(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [tuple(statistics.quantiles(column, n=4)) for column in zip(*times, strict=True)]


def processor_time(call: Call) -> float:
    """Milliseconds of processor time per image, mean over severities; not a number if the call fails."""
    start = time.process_time()
    try:
        for severity in SEVERITIES:
            call.run(severity)
    except Exception as error:
        print(f"<!-- {type(error).__name__}: {error} -->")
        return math.nan
    return 1000 * (time.process_time() - start) / len(SEVERITIES) / call.images


def on_gpu(run: Callable[[int], object], rounds: int) -> float:
    """Images per second on the GPU, the median over rounds."""
    times = [
        sum(milliseconds(lambda severity=severity: run(severity), time.perf_counter) for severity in SEVERITIES)
        for _ in range(rounds + 1)
    ]
    return 1000 * len(SEVERITIES) * GPU_BATCH / statistics.median(times[1:])


if __name__ == "__main__":
    main()
