"""Where the time of the CIFAR-10 benchmark goes: making the corrupted images, and classifying them.

    python benchmarks/evaluate.py --data FOLDER [--model resnet20] [--images 500] [--threads 2]

Runs on the first images of the CIFAR-10 test set, whole cells of them, and extrapolates to all 10,000: every cell costs
the same per image whatever their number, and what happens once a run (textures, tables, first calls) is counted once.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pushpull_conv import evaluate
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pushpull_conv.data import ImageSet, load_images
from pushpull_conv.models import Classifier, create_model

ALL_IMAGES = 10_000
CELLS = len(CORRUPTIONS) * len(SEVERITIES)
BATCH = 250


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=500, help="how many images each cell has here")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{hardware()}; {options.threads} threads; {options.model}, {options.images} images a cell, batch {BATCH}\n")

    images = load_images("cifar10", "test", root=options.data)[: options.images]
    classifier = Classifier(create_model(options.model, num_classes=10), (0.5,) * 3, (0.25,) * 3).eval()
    once = seconds(lambda: evaluate(classifier, images[:1]))  # textures, tables and first calls; warm-up for the rest

    print("| what | ms an image, median over the severities | at the slowest |\n|---|--:|--:|")
    corrupting = []
    for name in CORRUPTIONS:
        times = [milliseconds_to_corrupt(images, name, severity) for severity in SEVERITIES]
        corrupting += times
        print(f"| {name} | {statistics.median(times):.3f} | {max(times):.3f} |")
    print(f"| **all corruptions** | {statistics.fmean(corrupting):.3f} (mean) | {max(corrupting):.3f} |")
    print(f"| **{options.model}** | {milliseconds_to_classify(classifier, images):.3f} | |")

    whole = seconds(lambda: evaluate(classifier, images))
    each = 1000 * whole / (CELLS + 1) / len(images)
    print(f"| **evaluate()** | {each:.3f} (mean) | |\n")
    minutes = (each / 1000 * ALL_IMAGES * (CELLS + 1) + once) / 60
    print(f"Measured: {whole:.1f} s for {CELLS} + 1 cells of {len(images)} images, after {once:.1f} s once a run.")
    print(f"Extrapolated to cells of {ALL_IMAGES} images: {minutes:.1f} minutes.")


def milliseconds_to_corrupt(images: ImageSet, name: str, severity: int) -> float:
    """Time of one image, over the whole cell."""
    parts = zip(images.images.split(BATCH), images.index.split(BATCH), strict=True)

    def cell() -> None:
        for pixels, index in parts:
            corrupt(pixels, name, severity, index=index, profile="cifar")

    return seconds(cell) / len(images) * 1000


@torch.inference_mode()
def milliseconds_to_classify(classifier: Classifier, images: ImageSet) -> float:
    """Time of one image, the median of three passes over the images."""
    batches = [part.contiguous(memory_format=torch.channels_last) for part in images.images.split(BATCH)]
    passes = [seconds(lambda: [classifier(batch) for batch in batches]) for _ in range(3)]
    return statistics.median(passes) / len(images) * 1000


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def hardware() -> str:
    """The machine, in words."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    main()
