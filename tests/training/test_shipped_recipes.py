"""Every shipped recipe takes a training step and one of the benchmark, on a small tree of the classes it is for."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pushpull_conv import planning
from pushpull_conv.data.sets import CIFAR10, IMAGENET
from pushpull_conv.training.recipe import load_recipe, shipped_recipes


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Class folders of CIFAR-10, 13 images for each class and split, and of ImageNet, 1 for each."""
    root = tmp_path_factory.mktemp("trees")
    for name, classes, side, count in (("cifar10", CIFAR10.classes, 32, 13), ("imagenet", IMAGENET, 60, 1)):
        content = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(content, "PNG")
        for folder in (root / name / split / label for split in ("train", "test") for label in classes):
            folder.mkdir(parents=True)
            for place in range(count):
                (folder / f"{place}.png").write_bytes(content.getvalue())
    return root


def tree_of(recipe):
    return {"cifar10": "cifar10", "digits": None}.get(recipe.data.name, "imagenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_a_dry_run_takes_a_step_of_the_richest_variant(pushpull, trees, tmp_path, monkeypatch, name):
    monkeypatch.setattr(planning, "_PROBE_PIXELS", 8 * 32 * 32)  # of few images, as no time is compared here
    recipe = load_recipe(name)
    richest = max(recipe.variants[1:], key=lambda variant: len(variant.name))
    teacher = [recipe.variant(richest.distillation.teacher)] if richest.distillation else []
    variants = [variant.model_dump(mode="json") for variant in (*teacher, richest)]
    tree = tree_of(recipe)
    data = ["--data", trees / tree] if tree else []
    call = ["run", name, "--dry-run", "--out", tmp_path / "run", *data, "--set", f"variants={json.dumps(variants)}"]
    call += ["--set", f"baseline={variants[0]['name']}"]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    images = (
        1442
        if recipe.data.name == "digits"
        else {"cifar10": 130, "imagenet-100": 100, "imagenet-200": 200}.get(recipe.data.name, 1000)
    )
    steps = images // recipe.training.batch_size * recipe.training.epochs
    assert f"{steps:,}" in out
    assert not (tmp_path / "run").exists()
