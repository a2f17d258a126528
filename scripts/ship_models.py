"""Put trained models of results/ into the package, with their counts and model cards: python scripts/ship_models.py.

The folders in src/pushpull_conv/pretrained/ are made wholly by this script; a test makes them anew and compares.
"""

import dataclasses
import shutil
from pathlib import Path

from pushpull_conv.augment import AUGMENTATIONS
from pushpull_conv.benchmark import Results
from pushpull_conv.files import MODEL_FILE, RECIPE_FILE, RESULTS_FILE
from pushpull_conv.interop.card import card_text
from pushpull_conv.interop.hub import HubClassifier
from pushpull_conv.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
HOME = ROOT / "src" / "pushpull_conv" / "pretrained"
NETWORK = "cifar10-resnet20"
RUN = ROOT / "results" / NETWORK
BEST = (
    ROOT / "results" / f"{NETWORK}-search" / "BlurredConv",
    ROOT / "results" / f"{NETWORK}-augmented" / "AugMix+BlurredConv",
)
"""The best by R_net of their recipes: without an augmentation, and with one."""
MODELS = (RUN / "baseline", RUN / "PP3", RUN / "PP5", RUN / "PP5-trainable", *BEST)
"""What is shipped; the first is the baseline."""
LICENCE = "apache-2.0"

USE = """import torch
from pushpull_conv.models import load_pretrained

model = load_pretrained("{name}")  # needs no network
images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)  # yours
probabilities = model(images).softmax(1)  # float32 [4, 10]"""
NOTES = """## Training data

The 50,000 training images of CIFAR-10, cropped at random after padding by 4 pixels, and mirrored at random{augmented}.
The model saw no corrupted image. Source: Krizhevsky,
[Learning Multiple Layers of Features from Tiny Images](https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf),
2009. [The data set](https://www.cs.toronto.edu/~kriz/cifar.html) is distributed by its author without a stated licence.

## Limits

- It tells ten classes apart, in photographs of 32 x 32 pixels, and gives one of the ten to any other picture, too.
- It was trained for {epochs} epochs on a CPU; the paper's recipe takes 30. The errors are those of a small network
  after a short training.
- It comes from one training with one seed. That does not tell how much of a difference of half a point is chance.
- The weights are those of the last epoch; no epoch was chosen by its error on the test images.{best}
- The same recipe ends at other weights with a later version of the unit's CPU kernel or on other hardware, as these
  round differently. Counted on another processor, the errors of these weights may differ by a few images of 10,000."""
CHOSEN = """
- The variant was chosen by its errors on the test images: it has the best R_net of those in its recipe."""


def shipped_folder(source: Path, home: Path) -> Path:
    """Return the folder in ``home`` that a trained variant gets."""
    return home / f"{NETWORK}-{source.name}".lower().replace("+", "-")


def ship(source: Path, home: Path) -> None:
    """Write one model's folder into ``home``, in place of what is there; the baseline comes before the others."""
    folder = shipped_folder(source, home)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = dataclasses.replace(Results.load(source / RESULTS_FILE), model=folder.name)
    results.save(folder / RESULTS_FILE)
    model = HubClassifier.from_checkpoint(source)
    (folder / "README.md").write_text(_card(model, source, folder), encoding="utf-8")
    model.save_pretrained(folder)  # config.json; it keeps the card
    shutil.copyfile(source / MODEL_FILE, folder / MODEL_FILE)  # the very file that was benchmarked


def _card(model: HubClassifier, source: Path, folder: Path) -> str:
    baseline, recipe = shipped_folder(MODELS[0], folder.parent), load_recipe(str(source.parent / RECIPE_FILE))
    augment = recipe.variant(source.name).augment
    return card_text(
        model.spec,
        source,
        LICENCE,
        baseline=None if folder == baseline else baseline,
        title=folder.name,
        use=USE.format(name=folder.name),
        notes=NOTES.format(
            epochs=recipe.training.epochs,
            best=CHOSEN if source in BEST else "",
            augmented=f", and augmented with {AUGMENTATIONS[augment.policy].title}" if augment else "",
        ),
    )


if __name__ == "__main__":
    for trained in MODELS:
        ship(trained, HOME)
