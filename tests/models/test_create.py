import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import create_model


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_cifar_resnets_have_the_published_size(depth, count):
    # He et al. 2016, table 6: 0.27, 0.46, 0.66 and 0.85 million.
    network = create_model(f"resnet{depth}", num_classes=10)
    assert parameters(network) == count
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_cifar_resnet_shortcut_subsamples_and_pads_channels_with_zeros():
    block = create_model("resnet20", num_classes=10).layer2[0].eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 16, 8, 8)
    response = block(x)
    assert response.shape == (1, 32, 4, 4)
    assert torch.equal(response[:, 8:24], x[:, :, ::2, ::2])
    assert response[:, :8].abs().sum() == response[:, 24:].abs().sum() == 0


def test_cifar_resnet_weights_start_with_the_variance_of_the_fan_out():
    torch.manual_seed(0)
    conv = create_model("resnet20", num_classes=10).layer3[2].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_resnet_with_either_stem():
    imagenet, cifar = create_model("resnet18", num_classes=10), create_model("resnet18", num_classes=10, stem="cifar")
    assert imagenet.conv1.kernel_size == (7, 7)
    assert imagenet.conv1.stride == (2, 2)
    assert isinstance(imagenet.maxpool, nn.MaxPool2d)
    assert cifar.conv1.kernel_size == (3, 3)
    assert cifar.conv1.stride == (1, 1)
    assert parameters(cifar) == 11_173_962  # as the CIFAR ResNet-18 that others publish
    maps = []
    cifar.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output.shape))
    assert cifar(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert maps == [(2, 512, 4, 4)]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_a_swap_changes_the_stem_and_nothing_else(name):
    torch.manual_seed(5)
    plain = create_model(name, num_classes=4).state_dict()
    torch.manual_seed(5)
    swapped = create_model(name, num_classes=4, pushpull={"avg_kernel_size": 5, "alpha": 0.5})
    units = [module for module in swapped.modules() if isinstance(module, PushPullConv2d)]
    assert len(units) == 1
    assert units[0].avg_kernel_size == 5
    state = swapped.state_dict()
    assert [name.rpartition(".")[2] for name in state.keys() - plain.keys()] == ["alpha"]
    assert all(torch.equal(state[name], value) for name, value in plain.items())


def test_pushpull_settings_reach_the_unit():
    settings = {"avg_kernel_size": 3, "trainable_alpha": True}
    unit = create_model("resnet20", num_classes=2, pushpull=settings).conv1
    assert unit.trainable_alpha
    assert create_model("resnet20", num_classes=2, pushpull={}).conv1.avg_kernel_size == 3


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_networks_with_side_outputs_return_logits_in_training(name):
    network = create_model(name, num_classes=3).train()
    assert isinstance(network(torch.randn(2, 3, 80, 80)), torch.Tensor)


def test_numbers_of_other_libraries_are_numbers():
    layer = {"kind": "upsampled-pull", "alpha": np.float32(1)}
    network = create_model("resnet20", num_classes=np.int64(3), layer=layer)
    assert network.fc.out_features == 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ResNet20", {}, "unknown model 'ResNet20'; did you mean 'resnet20'"),
        ("resnet50x", {}, "did you mean 'resnet50'"),
        ("tim:resnet50", {}, "unknown model 'tim:resnet50'"),
        ("timm:NAME", {}, "unknown timm model 'NAME'"),
        ("timm:", {}, "unknown model 'timm:'"),
        ("timm:resnet5", {}, "unknown timm model 'resnet5'; did you mean 'resnet50'.*list_models"),
        ("timm:resnet50.a9_in1k", {}, "unknown weights of timm's resnet50 'a9_in1k'; did you mean"),
        ("torchvision:resnet19", {}, "unknown torchvision model 'resnet19'; did you mean .*'resnet1"),
        ("resnet20", {"stem": "imagenet"}, "stem is 'imagenet', but 'resnet20' has only the stem 'cifar'"),
        ("resnet18", {"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'"),
        ("timm:resnet18", {"stem": "cifar"}, "stem is 'cifar', but 'timm:resnet18' has its own"),
        ("resnet20", {"pushpull": {"alfa": 1}}, "unknown pushpull key 'alfa'; did you mean 'alpha'"),
        ("resnet20", {"pushpull": {"avg_kernel_size": 4}}, "avg_kernel_size is 4"),
        ("resnet20", {"pushpull": True}, r"pushpull is True; give a mapping of its settings, at the least \{\}"),
        (
            "resnet20",
            {"layer": "blurpool"},
            "layer is 'blurpool'; give a mapping of its settings, at the least {'kind'",
        ),
        (
            "resnet20",
            {"pretrained": True},
            "^'resnet20' has no published weights; choose a network of timm or torchvision$",
        ),
        (
            "resnet18",
            {"pretrained": True, "stem": "cifar"},
            "^'resnet18' has no published weights; name 'timm:resnet18' or 'torchvision:resnet18'$",
        ),
        (
            "torchvision:googlenet",
            {"pretrained": True},
            "^with its published weights .* takes other input; use 'timm:inception_v3'",
        ),
        ("resnet20", {"num_classes": 0}, "num_classes is 0; allowed: 1 or more"),
        ("resnet20", {"num_classes": "10"}, "num_classes is '10'; allowed: 1 or more"),
        ("resnet20", {"pushpull": {"alpha": "strong"}}, "alpha is 'strong'; allowed: a number, or 16 of them"),
    ],
)
def test_bad_input_is_named(name, settings, message):
    with pytest.raises(InputError, match=message) as error:
        create_model(name, **{"num_classes": 10, **settings})
    assert "\n" not in str(error.value)


def test_a_network_without_memory_is_not_waited_for():
    """PyTorch imports its compiler, which takes seconds, to draw random numbers for tensors without memory."""
    code = (
        "import sys\n"
        "from pushpull_conv.models.create import create_model, create_without_memory\n"
        "unit = {'trainable_alpha': True}\n"
        "empty = create_without_memory('resnet20', num_classes=10, pushpull=unit)\n"
        "assert all(value.is_meta for value in empty.state_dict().values())\n"
        "shapes = [{k: v.shape for k, v in network.state_dict().items()}\n"
        "          for network in (empty, create_model('resnet20', num_classes=10, pushpull=unit))]\n"
        "assert shapes[0] == shapes[1]\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
