"""Where the time of training goes: batches, augmentation, forward, backward, optimiser; and what each option saves.

    python benchmarks/training.py cifar10-resnet18 --data FOLDER [--variants baseline PP3] [--steps 20] [--threads 2]

Every form of the step of every variant runs on the same batches, in turn with the others, after a step of warm-up. The
ratios are to the plainest form of the same variant, and to the same form of the first variant. The median over the
rounds is multiplied by the steps of the recipe to give the minutes of a whole training, which is not run.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import hardware, synchronise

from pushpull_conv.cores import usable_cores
from pushpull_conv.data import open_images
from pushpull_conv.planning import untrained_teacher
from pushpull_conv.training.fit import build, training_batches, training_module
from pushpull_conv.training.module import Batch
from pushpull_conv.training.precision import HALVES
from pushpull_conv.training.recipe import Recipe, load_recipe

PARTS = ("batch", "forward", "backward", "optimiser")
FORMS = {
    "float32": ["training.precision=32-true", "training.channels_last=false"],
    "float32, channels-last": ["training.precision=32-true"],
    "bfloat16, channels-last": ["training.precision=bf16-mixed"],
    "bfloat16, channels-last, compiled": ["training.precision=bf16-mixed", "training.compile=true"],
}


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, help="folder of the recipe's data set")
    parser.add_argument("--variants", nargs="+", default=["baseline"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe)
    images = open_images(recipe.data.name, "train", root=options.data)
    total = len(images) // recipe.training.batch_size * recipe.training.epochs
    steppers = {
        (variant, form): Stepper(load_recipe(options.recipe, changes), variant, images)
        for variant in options.variants
        for form, changes in FORMS.items()
    }
    times: dict[tuple[str, str], list[tuple[float, ...]]] = {key: [] for key in steppers}
    for round_ in range(options.steps + 1):
        for key, stepper in steppers.items():
            step = stepper.step()
            if round_:  # the first is warm-up, and compiles
                times[key].append(step)
    print(f"{hardware()}; {options.threads} threads; {options.recipe}: {options.steps} steps\n")
    parts = " | ".join(f"{part}, ms" for part in PARTS)
    first, plainest = options.variants[0], next(iter(FORMS))
    print(f"| variant | form | {parts} | step, ms | to {plainest} | to {first} | training, min |")
    print("|---|---" + "|--:" * (len(PARTS) + 4) + "|")
    whole = {key: statistics.median(map(sum, steps)) for key, steps in times.items()}
    for (variant, form), steps in times.items():
        shown = " | ".join(f"{1000 * statistics.median(part):.1f}" for part in zip(*steps, strict=True))
        seconds = whole[variant, form]
        ratios = " | ".join(f"{seconds / whole[key]:.2f} x" for key in ((variant, plainest), (first, form)))
        print(f"| {variant} | {form} | {shown} | {1000 * seconds:.1f} | {ratios} | {seconds * total / 60:.1f} |")


class Stepper:
    """One form of the training step and the batches that it learns from."""

    def __init__(self, recipe: Recipe, variant: str, images) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        chosen = recipe.variant(variant)
        self.half = HALVES.get(recipe.training.precision)
        self.batches = self.epochs(training_batches(recipe, chosen, images, self.device))
        torch.manual_seed(recipe.seed)
        classifier, _ = build(recipe, chosen, images)
        teacher = untrained_teacher(recipe, chosen, images)
        if teacher:
            teacher.to(self.device)
        self.module = training_module(recipe, chosen, classifier.to(self.device), steps=1_000_000, teacher=teacher)
        self.optimizer = self.module.configure_optimizers()["optimizer"]

    def epochs(self, batches) -> Iterator[Batch]:
        """The batches of one epoch after another."""
        while True:
            for batch in batches:
                yield tuple(values.to(self.device) for values in batch)

    def step(self) -> tuple[float, ...]:
        """Train one step; the seconds of each of `PARTS`."""
        times = [self.now()]
        batch = next(self.batches)
        times.append(self.now())
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            loss, _ = self.module.loss(batch, epoch=0)
        times.append(self.now())
        self.optimizer.zero_grad()
        loss.backward()
        times.append(self.now())
        self.optimizer.step()
        times.append(self.now())
        return tuple(later - earlier for earlier, later in itertools.pairwise(times))

    def now(self) -> float:
        """The time when the device has done all that it was told."""
        synchronise()
        return time.perf_counter()


if __name__ == "__main__":
    main()
