"""What batch normalisation becomes where several processes train; `tests/test_ranks.py` trains with it."""

import copy

import pytest
import torch
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.models import Classifier, create_model
from pushpull_conv.training.shared_statistics import with_shared_statistics

OTHER = (0.5,) * 3, (0.25,) * 3


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "timm:test_efficientnet"])
def test_on_gpus_the_network_that_is_saved_is_the_one_that_was_trained(name):
    """timm's normalisations have an activation in them, which torch's conversion would drop."""
    torch.manual_seed(0)
    plain = Classifier(create_model(name, num_classes=4), *OTHER).eval()
    shared = with_shared_statistics(copy.deepcopy(plain), torch.device("cuda")).eval()
    images = torch.rand(2, 3, 64, 64)
    assert sum("Sync" in type(module).__name__ for module in shared.modules()) > 10
    torch.testing.assert_close(shared(images), plain(images))
    assert shared.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (create_model("timm:test_efficientnet", num_classes=4), r"'network.bn1' is BatchNormAct2d\("),
        (nn.Sequential(nn.BatchNorm2d(3, affine=False)), r"'network.0' is BatchNorm2d\(.*affine=False"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "track_running_stats=False"),
        (nn.Sequential(nn.BatchNorm2d(3, momentum=None)), "momentum=None"),
    ],
)
def test_on_cpus_a_normalisation_that_cannot_be_shared_is_refused(network, named):
    with pytest.raises(InputError, match=rf"{named}.* use --devices 1, or GPUs"):
        with_shared_statistics(Classifier(network, *OTHER), torch.device("cpu"))
