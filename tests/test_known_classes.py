"""Models that know more classes than the images have, or the same in another order."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from timm.models import _builder

from pushpull_conv import Results, evaluate
from pushpull_conv.classifiers import open_classifier
from pushpull_conv.data import ImageSet, open_images
from pushpull_conv.data.sets import CIFAR10, IMAGENET
from pushpull_conv.errors import InputError
from pushpull_conv.models import ModelSpec, load_pretrained, pretrained_synsets, save_checkpoint
from pushpull_conv.provenance import read_provenance

SYNSETS = ["n01440764", "n02123045", "n15075141"]
PLACES = [0, 281, 999]
"""Where ImageNet's 1000 classes have them."""


@pytest.mark.parametrize("classes", [("truck", "cat", "frog"), CIFAR10.classes[::-1], CIFAR10.classes])
def test_a_trained_model_chooses_among_the_classes_that_the_images_have(classes):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(60) % len(classes)
    images = ImageSet(pixels, labels, classes, torch.arange(60), "some", "test")
    classifier = open_classifier("cifar10-resnet20-baseline", images)
    counts = evaluate(classifier, images, suite="cifar10-c", corruptions=["fog"], severities=[1]).clean

    logits = load_pretrained("cifar10-resnet20-baseline")(pixels).detach().numpy()
    columns = [CIFAR10.classes.index(name) for name in classes]
    assert counts.top1 == int((logits[:, columns].argmax(1) == labels.numpy()).sum())
    assert 0 < counts.top1 < 60


def test_a_model_that_calls_two_classes_alike_is_refused(tmp_path):
    """Which of the two an image of that name is of cannot be told."""
    spec = ModelSpec("timm:test_resnet", 3, None, None, (0.5,) * 3, (0.25,) * 3, ("crane", "dog", "crane"))
    save_checkpoint(tmp_path / "model.safetensors", spec.build(), spec)
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(2), ("crane", "dog"), torch.arange(2), "some", "test")
    with pytest.raises(InputError, match=r"model '.*' has two classes called 'crane'; give each class a name of its"):
        open_classifier(str(tmp_path), images)


def test_the_librarys_order_of_imagenet_is_ours():
    for name in ("timm:resnet18", "timm:vit_tiny_patch16_224", "torchvision:resnet18"):
        assert pretrained_synsets(name) == IMAGENET
    known = pretrained_synsets("timm:vit_base_patch16_224.augreg_in21k")
    assert len(known) == len(set(known)) == 21843
    assert set(IMAGENET) - set(known) == {"n04399382"}  # it is called otherwise there
    assert pretrained_synsets("timm:vit_small_patch14_dinov2") == ()  # knows no classes


@pytest.fixture
def photos(tmp_path):
    """Two pictures for each of three synsets, in a folder of the user's own."""
    random = np.random.default_rng(5)
    for synset in SYNSETS:
        folder = tmp_path / "photos" / "val" / synset
        folder.mkdir(parents=True)
        for place in range(2):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((256, 256)).save(folder / f"{place}.png")
    return tmp_path / "photos"


@pytest.fixture
def published(monkeypatch):
    """Weights of a ResNet-18 as timm would download them."""
    torch.manual_seed(8)
    source = torchvision.models.resnet18().eval()
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *_, **__: source.state_dict())
    return source


def test_published_weights_score_a_folder_of_some_of_their_classes(pushpull, photos, published, tmp_path):
    call = ["evaluate", "timm:resnet18", "--weights", "pretrained", "--data-set", "folder", "--data", photos]
    code, out, err = pushpull(*call, "--out", tmp_path / "out", "--corruption", "contrast", "--severity", 1)
    assert (code, err) == (0, "")
    assert "input: 224 x 224 pixels in [0, 1], minus 0.485 0.456 0.406, divided by 0.229 0.224 0.225\n" in out
    told = "the 3 of folder, of those that the model knows"
    assert f"classes: {told}\n" in out
    assert read_provenance(tmp_path / "out")["benchmark"]["classes"] == told
    assert "parameters: 11689512\n" in out

    (batch,) = open_images("folder", "test", root=photos).batches(6)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        logits = published((batch.images / 255 - mean) / std)[:, PLACES]
    hits = (logits.argmax(1) == torch.tensor([0, 0, 1, 1, 2, 2])).sum()
    assert Results.load(tmp_path / "out" / "results.json").clean.top1 == int(hits)


def test_folders_that_are_not_named_as_the_weights_classes_are_refused(pushpull, photos, published, tmp_path):
    (photos / "val" / "n15075141").rename(photos / "val" / "toilet paper")
    call = ["evaluate", "timm:resnet18", "--weights", "pretrained", "--data-set", "folder", "--data", photos]
    code, _, err = pushpull(*call, "--out", tmp_path / "out")
    assert code == 2
    assert "'pretrained' was trained on 1000 classes (n01440764, " in err
    assert "folder has others (toilet paper); give images of its classes, whose folders have their names" in err
    assert not (tmp_path / "out").exists()
