"""Where the time of the CIFAR-10 benchmark goes: making the corrupted images, and classifying them.

    python benchmarks/evaluate.py --data FOLDER [--model resnet20] [--images 500] [--threads 2]

Runs on the first images of the CIFAR-10 test set, whole cells of them, and extrapolates to all 10,000: every cell costs
the same per image whatever their number, and what happens once a run (textures, tables, first calls) is counted once.
The table is in CPU time, summed over the threads, because other programs on the machine lengthen it least.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import hardware

from pushpull_conv import evaluate
from pushpull_conv.cores import usable_cores
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pushpull_conv.data import ImageSet, load_images
from pushpull_conv.models import Classifier, create_model

ALL_IMAGES = 10_000
CELLS = 1 + len(CORRUPTIONS) * len(SEVERITIES)
BATCH = 250


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=500, help="how many images each cell has here")
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{hardware()}; {options.threads} threads; {options.images} images a cell in batches of {BATCH}\n")

    images = load_images("cifar10", "test", root=options.data)[: options.images]
    classifier = Classifier(create_model(options.model, num_classes=10), (0.5,) * 3, (0.25,) * 3).eval()
    once_wall, once_cpu = seconds(lambda: evaluate(classifier, images[:1]))  # warms the rest up, too

    print("| what | CPU ms an image, mean over the severities | slowest severity |\n|---|--:|--:|")
    means = []
    for name in CORRUPTIONS:
        times = [milliseconds_to_corrupt(images, name, severity) for severity in SEVERITIES]
        means.append(statistics.fmean(times))
        print(f"| {name} | {means[-1]:.3f} | {max(times):.3f} |")
    print(f"| **corruptions** | {statistics.fmean(means):.3f} | |")
    for name, autocast in ((options.model, None), (f"{options.model} under autocast to bfloat16", "bfloat16")):
        print(f"| **{name}** | {milliseconds_to_classify(classifier, images, autocast):.3f} | |")
    _, lower_cpu = seconds(lambda: evaluate(classifier, images, autocast="bfloat16"))
    wall, cpu = seconds(lambda: evaluate(classifier, images))
    print(f"| **evaluate()** | {1000 * cpu / CELLS / len(images):.3f} | |")
    print(f'| **evaluate(autocast="bfloat16")** | {1000 * lower_cpu / CELLS / len(images):.3f} | |\n')

    share = ALL_IMAGES / len(images)
    print(
        f"Measured: {wall:.1f} s, {cpu:.1f} s of CPU, for {CELLS} cells; {once_wall:.1f} s, {once_cpu:.1f} s at first."
    )
    minutes, cpu_minutes = (wall * share + once_wall) / 60, (cpu * share + once_cpu) / 60
    print(f"Extrapolated to cells of {ALL_IMAGES} images: {minutes:.1f} minutes, {cpu_minutes:.1f} minutes of CPU.")


def milliseconds_to_corrupt(images: ImageSet, name: str, severity: int) -> float:
    """CPU time of one image, over the whole cell."""

    def cell() -> None:
        for pixels, index in zip(images.images.split(BATCH), images.index.split(BATCH), strict=True):
            corrupt(pixels, name, severity, index=index, profile="cifar")

    return 1000 * seconds(cell)[1] / len(images)


@torch.inference_mode()
def milliseconds_to_classify(classifier: Classifier, images: ImageSet, autocast: str | None) -> float:
    """CPU time of one image, the median of three passes over the images."""
    batches = [part.contiguous(memory_format=torch.channels_last) for part in images.images.split(BATCH)]
    with torch.autocast("cpu", getattr(torch, autocast)) if autocast else contextlib.nullcontext():
        passes = [seconds(lambda: [classifier(batch) for batch in batches])[1] for _ in range(3)]
    return 1000 * statistics.median(passes) / len(images)


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
