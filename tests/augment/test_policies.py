"""The policies on single pictures: which operations torchvision draws, and what decides the picture that comes out."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pushpull_conv.augment import AUGMENTATIONS, overlap_note
from pushpull_conv.augment.policies import image_policy
from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from pushpull_conv.errors import InputError

ON_IMAGES = [name for name, augment in AUGMENTATIONS.items() if augment.where == "image"]


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)


def drawn_by(policy):
    """The operations that torchvision's transform may draw, from its own tables."""
    if isinstance(policy, v2.AutoAugment):
        return {operation for pair in policy._policies for operation, _, _ in pair}
    if isinstance(policy, v2.AugMix) and not policy.all_ops:
        return set(policy._PARTIAL_AUGMENTATION_SPACE)
    return set(policy._AUGMENTATION_SPACE)


def watched(policy, pictures, monkeypatch):
    """The operations that are carried out in fact."""
    seen = set()
    apply = type(policy)._apply_image_or_video_transform

    def spy(self, image, operation, *rest, **named):
        seen.add(operation)
        return apply(self, image, operation, *rest, **named)

    monkeypatch.setattr(type(policy), "_apply_image_or_video_transform", spy)
    for _ in range(400):
        policy(pictures)
    return seen


@pytest.mark.parametrize("name", ON_IMAGES)
def test_the_overlaps_name_torchvisions_operations_and_no_others(name):
    sides = (32, 64, 224)
    assert set(AUGMENTATIONS[name].overlaps) == set().union(*(drawn_by(image_policy(name, side)) for side in sides))


@pytest.mark.parametrize("name", ON_IMAGES)
def test_what_is_carried_out_is_what_the_overlaps_name(name, picture, monkeypatch):
    torch.manual_seed(0)
    policies = [image_policy(name, side) for side in (32, 224)]
    seen = set().union(*(watched(policy, picture, monkeypatch) for policy in policies))
    assert seen == set(AUGMENTATIONS[name].overlaps)


def test_the_remark_on_autoaugment_holds():
    small, large = (drawn_by(image_policy("autoaugment", side)) for side in (32, 224))
    close = {name for name, corruptions in AUGMENTATIONS["autoaugment"].overlaps.items() if corruptions}
    assert small & close == close
    assert close - large == {"Brightness"}
    assert "Brightness in its CIFAR-10 policy only" in overlap_note("autoaugment")


def test_augmix_leaves_out_what_overlaps_the_test_corruptions():
    """By the paper; torchvision's own default has it."""
    everything = set(v2.AugMix()._AUGMENTATION_SPACE)
    assert everything - set(AUGMENTATIONS["augmix"].overlaps) == {"Brightness", "Color", "Contrast", "Sharpness"}


def test_overlaps_are_corruptions_of_the_benchmark():
    for augment in AUGMENTATIONS.values():
        assert augment.overlaps
        for corruptions in augment.overlaps.values():
            assert set(corruptions) <= {*CORRUPTIONS, *EXTRA_CORRUPTIONS}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_note_names_every_overlap_in_one_sentence(name):
    note = overlap_note(name)
    assert note.startswith(AUGMENTATIONS[name].title)
    assert note.endswith(".")
    assert note.count(".") == 1
    for operation, corruptions in AUGMENTATIONS[name].overlaps.items():
        assert (operation in note) == bool(corruptions)
        assert all(corruption.replace("_", " ") in note for corruption in corruptions)


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_the_document_has_the_overlaps(augment):
    close = [
        f"{operation}: {', '.join(corruptions).replace('_', ' ')}"
        for operation, corruptions in augment.overlaps.items()
        if corruptions
    ]
    document = Path(__file__).parents[2] / "docs" / "augmentations.md"
    assert f"| {augment.title} | {'; '.join(close) or 'none'} |" in document.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ON_IMAGES)
def test_torchs_generator_decides_alone(name, picture):
    policy = image_policy(name, 32)
    results = []
    for attempt in range(2):
        random.seed(attempt)
        np.random.seed(attempt)  # noqa: NPY002
        outcomes = []
        for key in range(60):
            torch.default_generator.manual_seed(key)
            outcomes.append(policy(picture))
        results.append([np.asarray(outcome) for outcome in outcomes])
    np.testing.assert_array_equal(*results)
    assert len({outcome.tobytes() for outcome in results[0]}) > 15
    assert all(outcome.shape == (32, 32, 3) and outcome.dtype == np.uint8 for outcome in results[0])


def test_of_a_seed_the_low_32_bits_count():
    """What the docstring warns of; were it to change, nobody would be hurt, but the warning would be wrong."""
    torch.default_generator.manual_seed(5)
    first = torch.rand(4)
    torch.default_generator.manual_seed(5 + 2**32)
    assert torch.equal(torch.rand(4), first)


def test_severity_1_would_leave_torchvisions_augmix_no_motion():
    """Why the severity is 3 for all pictures."""
    space = v2.AugMix._PARTIAL_AUGMENTATION_SPACE
    steps = {name: space[name][0](10, 224, 224) for name in ("ShearX", "TranslateY", "Rotate")}
    assert all(magnitudes[0] == 0 and magnitudes[2] > 0 for magnitudes in steps.values())
    assert image_policy("augmix", 224).severity == 3


def test_randaugment_turns_by_9_degrees_as_the_document_says():
    policy = image_policy("randaugment", 224)
    angles = policy._AUGMENTATION_SPACE["Rotate"][0](policy.num_magnitude_bins, 224, 224)
    assert angles[policy.magnitude] == pytest.approx(9)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("autoaugmnt", 32, "did you mean 'autoaugment'"),
        ("prime", 32, "unknown augmentation 'prime'"),
        ("augmix", 0, "size is 0"),
        ("augmix", "cifar", "size is 'cifar'"),
    ],
)
def test_what_it_cannot_use_it_names(name, size, words):
    with pytest.raises(InputError, match=words):
        image_policy(name, size)


def test_a_note_on_an_unknown_augmentation_is_refused():
    with pytest.raises(InputError, match="did you mean 'prime'"):
        overlap_note("primes")
