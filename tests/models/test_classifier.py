import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.models import Classifier, create_model
from steps import refuses

MEAN, STD = (0.5, 0.25, 0.125), (0.2, 0.4, 0.5)


def test_normalises_uint8_and_floats_alike():
    classifier = Classifier(nn.Identity(), MEAN, STD)
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = torch.stack([(images[:, c].double() / 255 - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    torch.testing.assert_close(classifier(images).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(classifier(images.float() / 255), classifier(images))


def test_its_state_is_that_of_the_network():
    network = create_model("resnet20", num_classes=10)
    classifier = Classifier(network, MEAN, STD)
    assert set(classifier.state_dict()) == {f"network.{name}" for name in network.state_dict()}


def test_follows_the_dtype_of_the_network_and_autocast():
    classifier = Classifier(create_model("resnet20", num_classes=10), MEAN, STD).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    full = classifier(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert classifier(images).dtype == torch.bfloat16
    double = classifier.double()(images)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_gets_images_in_it(dtype):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    network = create_model("resnet20", num_classes=10).eval()
    expected = Classifier(network, MEAN, STD)(images)
    logits = Classifier(network.to(dtype), MEAN, STD)(images)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.05)


def test_mean_and_deviation_lie_where_the_network_does():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).to("meta", torch.float64)
    classifier = Classifier(network, MEAN, STD)
    for value in (classifier.mean, classifier.std):
        assert (value.device.type, value.dtype) == ("meta", torch.float64)
    logits = classifier(torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta"))
    assert (logits.device.type, logits.shape) == ("meta", (2, 8))


def test_one_mean_does_not_stand_for_three_channels():
    grey = nn.Conv2d(1, 2, 3)
    with pytest.raises(InputError, match="images have 3 channels, mean and std are of 1; give one"):
        Classifier(grey, (0.5,), (0.25,))(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert Classifier(grey, (0.5,), (0.25,))(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)).shape == (2, 2, 2, 2)


def test_keeps_channels_last():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert Classifier(nn.Identity(), MEAN, STD)(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, (0.2, 0.4), "mean has 3 values and std 2"),
        (MEAN, (0.2, 0.0, 0.5), "std is .* allowed: positive numbers"),
        ((125.3, 123.0, 113.9), STD, "mean is .*divide by 255"),
        ((float("nan"),) * 3, STD, "mean is"),
        (0.5, 0.25, r"mean is 0\.5; give a tuple with a number for each channel"),
        (MEAN, torch.tensor(STD), "std is tensor.*; give a tuple"),
        ((), (), "std is .* allowed: positive numbers"),
    ],
)
def test_bad_statistics_are_named(mean, std, message):
    with pytest.raises(InputError, match=message):
        Classifier(nn.Identity(), mean, std)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (Image.new("RGB", (4, 4)), r"images are a Image; give a tensor \[B, C, H, W\], uint8 or floating point"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"images are a ndarray; give a tensor"),
        (torch.zeros(3, 4, 4), r"images are \[3, 4, 4\]; give \[B, C, H, W\], a single one as images\[None\]"),
        (torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8), r"images are \[2, 1, 3, 4, 4\]; give \[B, C, H, W\]"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, said):
    refuses(Classifier(nn.Flatten(), MEAN, STD), said, images)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_its_checks_leave_one_graph():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    classifier = Classifier(nn.Flatten(), MEAN, STD)
    expected = classifier(images)
    for made in (
        torch.compile(classifier, backend="eager", fullgraph=True),
        torch.export.export(classifier, (images,)).module(),
        torch.jit.trace(classifier, images),
    ):
        assert torch.equal(made(images), expected)


def test_integers_other_than_uint8_are_refused():
    with pytest.raises(InputError, match=r"images are torch.int64; allowed: uint8"):
        Classifier(nn.Identity(), MEAN, STD)(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
