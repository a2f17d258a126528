"""What the augmentations cost per training image.

    python benchmarks/augmentations.py [--rounds 9] [--prime FOLDER]

On one CPU thread, at 32 pixels with the settings for CIFAR-10 and at 224 with those for ImageNet: milliseconds of
processor time per image, the median over rounds with the middle half of them; in every round each augments the same
pictures once, in turn. Those that work on single pictures are given Pillow's pictures, as training does, and tensors.
`FOLDER` is a checkout of the code that PRIME's authors published (github.com/amodas/PRIME-augmentations, which needs
einops and opt_einsum): it then runs beside ours, on the same batches.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from machine import hardware, pictures
from PIL import Image
from torch import Tensor

from pushpull_conv.augment import AUGMENTATIONS, PrimeSettings, prime, settings_for
from pushpull_conv.augment.policies import image_policy

COUNTS = {32: 256, 224: 16}


class Call(NamedTuple):
    """Something to measure: ``run(round)`` augments the pictures once."""

    name: str
    run: Callable[[int], object]


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prime", type=Path, metavar="FOLDER", help="a checkout of the authors' code")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware()}, one thread of them; {options.rounds} rounds\n")
    columns = [measure(calls(side, count, options.prime), options.rounds, count) for side, count in COUNTS.items()]
    print(f"| augmentation | {' | '.join(f'{side} pixels, ms per image' for side in COUNTS)} |")
    print(f"|---|{'--:|' * len(COUNTS)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


def calls(side: int, count: int, published: Path | None) -> list[Call]:
    """Everything to measure at one side."""
    images, index = pictures(count, side), torch.arange(count)
    single = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    found = [Call("seeding, `default_generator.manual_seed`", lambda number: seed(torch.default_generator, count))]
    found += [Call("seeding, `torch.manual_seed`", lambda number: seed(torch, count))]
    for name, augment in AUGMENTATIONS.items():
        if augment.where == "image":
            policy = image_policy(name, side)
            found += [Call(augment.title, one_by_one(policy, single))]
            found += [Call(f"{augment.title} on tensors", one_by_one(policy, list(images)))]
    settings = settings_for(side)
    found += [Call("PRIME", lambda number: prime(images, index=index, epoch=number, seed=0, settings=settings))]
    if published:
        found += [Call("PRIME, the authors' code", published_prime(published, images, settings))]
    return found


def seed(generator: object, count: int) -> None:
    """Seed a generator once for each picture."""
    for key in range(count):
        generator.manual_seed(key)


def one_by_one(policy: Callable[[object], object], single: list) -> Callable[[int], None]:
    """Augment one picture after the other, with draws of their own in every round."""

    def run(number: int) -> None:
        torch.default_generator.manual_seed(number)
        for picture in single:
            policy(picture)

    return run


def published_prime(folder: Path, images: Tensor, settings: PrimeSettings) -> Callable[[int], Tensor]:
    """The authors' module with the same settings, from and to bytes like ours."""
    sys.path.insert(0, str(folder))
    warp, color, band = settings.warp_cut, settings.color_cut, settings.color_band
    transforms = [
        published("diffeomorphism").Diffeo(1.0, 1.0, 1.0, 1.0, 2, warp, 1.0, stochastic=True),
        published("color_jitter").RandomSmoothColor(color, settings.color_temperature, band, stochastic=True),
        published("rand_filter").RandomFilter(3, 4.0, stochastic=True),
    ]
    mixed = published("prime").GeneralizedPRIMEModule(
        torch.nn.Identity(), published("prime").PRIMEAugModule(transforms), mixture_width=3, no_jsd=True
    )
    return lambda number: mixed(images / 255).mul(255).round().to(torch.uint8)


def published(name: str):
    """One module of the authors' code."""
    return importlib.import_module(f"utils.{name}")


def measure(timed: list[Call], rounds: int, count: int) -> dict[str, str]:
    """Median and middle half of each call's milliseconds per image, after a round of warm-up."""
    times = [[processor_time(call, number) / count for call in timed] for number in range(rounds + 1)][1:]
    cells = {}
    for call, column in zip(timed, zip(*times, strict=True), strict=True):
        low, middle, high = statistics.quantiles(column, n=4)
        cells[call.name] = f"{middle:.3g} ({low:.3g}–{high:.3g})"
    return cells


def processor_time(call: Call, number: int) -> float:
    """Milliseconds of processor time of one round."""
    start = time.process_time()
    call.run(number)
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
