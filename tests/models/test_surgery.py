import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import SwapReport, create_model, swap_first_conv_

# Name, the stem that is to be found, and a small image size that the architecture takes.
TIMM = [
    ("resnet10t", "conv1.0", 32),
    ("resnet18", "conv1", 32),
    ("mobilenetv3_small_050", "conv_stem", 32),
    ("efficientnet_b0", "conv_stem", 32),
    ("regnetx_002", "stem.conv", 32),
    ("convnext_atto", "stem.0", 32),
    ("densenet121", "features.conv0", 32),
    ("dla46_c", "base_layer.0", 32),
    ("hrnet_w18_small", "conv1", 32),
    ("xception41", "stem.0.conv", 64),
    ("vit_tiny_patch16_224", "patch_embed.proj", 224),
    ("ghostnet_050", "conv_stem", 32),
    ("inception_v3", "Conv2d_1a_3x3.conv", 96),
    ("efficientvit_b0", "stem.in_conv.conv", 32),
]
TORCHVISION = [
    ("resnet18", "conv1", 32),
    ("alexnet", "features.0", 64),
    ("squeezenet1_1", "features.0", 64),
    ("mobilenet_v2", "features.0.0", 32),
    ("shufflenet_v2_x0_5", "conv1.0", 32),
    ("efficientnet_b0", "features.0.0", 32),
    ("mnasnet0_5", "layers.0", 32),
    ("regnet_y_400mf", "stem.0", 32),
    ("swin_t", "features.0.0", 32),
]


@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [(f"timm:{name}", *rest) for name, *rest in TIMM] + [(f"torchvision:{name}", *rest) for name, *rest in TORCHVISION],
)
def test_swap_and_train_a_step(name, stem, size):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3)
    before = network.get_submodule(stem)
    swapped, report = swap_first_conv_(network, avg_kernel_size=5, trainable_alpha=True)
    assert swapped is network
    assert (report.name, report.replaced) == (stem, before)
    assert network.get_submodule(stem) is report.unit
    assert report.unit.weight is before.weight
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    start = {name: value.detach().clone() for name, value in report.unit.named_parameters()}
    logits = network.train()(torch.rand(2, 3, size, size))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    optimizer.step()
    for name, value in report.unit.named_parameters():
        assert value.isfinite().all()
        assert not torch.equal(value, start[name]), name


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_every_torchvision_classifier_has_one_stem():
    names = torchvision.models.list_models(module=torchvision.models)
    for name in (name for name in names if not name.startswith("regnet")):  # these read tensors, which meta has not
        with torch.device("meta"):
            network = torchvision.models.get_model(name)
        _, report = swap_first_conv_(network)
        assert report.replaced.in_channels == 3, name


def test_a_plain_network():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Conv2d(4, 8, 3))
    _, report = swap_first_conv_(network, alpha=0.25)
    assert report.name == "0.0"
    assert isinstance(network[0][0], PushPullConv2d)
    assert network[0][0].alpha.unique().tolist() == [0.25]
    assert type(network[1]) is nn.Conv2d


def test_the_head_may_be_registered_before_the_stem():
    network = nn.ModuleDict({"head": nn.Conv2d(8, 10, 1), "gate": nn.Conv2d(1, 8, 1), "stem": nn.Conv2d(3, 8, 3)})
    assert swap_first_conv_(network)[1].name == "stem"


def test_the_model_may_be_the_convolution():
    conv = nn.Conv2d(3, 4, 3)
    unit, report = swap_first_conv_(conv)
    assert unit is report.unit
    assert unit.weight is conv.weight
    assert report.name == ""


def test_the_report_reads_as_one_line():
    report = swap_first_conv_(nn.Sequential(nn.Conv2d(3, 4, 3)))[1]
    assert isinstance(report, SwapReport)
    assert str(report).startswith("0: Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1)) -> PushPullConv2d(3, 4,")
    assert "\n" not in str(report)


class OwnConv(nn.Conv2d):
    pass


def hooked():
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_hook(lambda module, inputs, output: output)
    return nn.Sequential(conv)


def patched():
    conv = nn.Conv2d(3, 4, 3)
    conv.forward = lambda x: x
    return nn.Sequential(conv)


def compiled_in_place():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network.compile(backend="eager")
    return network


def misnamed():
    network = timm.create_model("resnet10t")
    network.pretrained_cfg = {"first_conv": "stem.conv"}
    return network


shared = nn.Conv2d(3, 3, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(3, 4), "Linear has 0 convolutions and none of 3 or 1 input channels"),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3)), "has 1 convolutions and none of 3 or 1"),
        (lambda: nn.Sequential(nn.Conv1d(3, 8, 3)), "has 0 convolutions"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)), r"2 convolutions of 3 input channels \(0, 1\)"),
        (
            lambda: swap_first_conv_(nn.Sequential(nn.Conv2d(3, 8, 3)))[0],
            "'0' .PushPullConv2d. is a push-pull unit already",
        ),
        (lambda: nn.Sequential(OwnConv(3, 8, 3)), "'0' .OwnConv. is not a plain torch.nn.Conv2d"),
        (lambda: timm.create_model("tf_mobilenetv3_small_minimal_100"), "'conv_stem' .Conv2dSame. is not a plain"),
        (lambda: timm.create_model("repvgg_a0"), "RepVGG|ByobNet.*2 first convolutions .stem.conv_kxk.conv"),
        (misnamed, "names 'stem.conv' as its first convolution and has no such module"),
        (lambda: nn.Sequential(shared, shared), "is shared by 0, 1; give each place its own"),
        (hooked, "has hooks or a replaced forward"),
        (patched, "has hooks or a replaced forward"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))),
            "is not a plain torch.nn.Conv2d",
        ),
        (lambda: nn.DataParallel(nn.Conv2d(3, 4, 3)), "wrapped in a DataParallel; call swap_first_conv_ before"),
        (lambda: torch.compile(nn.Conv2d(3, 4, 3), backend="eager"), "wrapped in a OptimizedModule"),
        (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3))), "wrapped in a GraphModule"),
        (compiled_in_place, "wrapped in a compiled module"),
    ],
)
def test_what_is_not_understood_is_refused(build, message):
    network = build()
    before = {name: type(module) for name, module in network.named_modules()}
    with pytest.raises(InputError, match=message) as error:
        swap_first_conv_(network)
    assert "\n" not in str(error.value)
    assert {name: type(module) for name, module in network.named_modules()} == before


def test_bad_settings_leave_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(InputError, match="avg_kernel_size is 2"):
        swap_first_conv_(network, avg_kernel_size=2)
    assert type(network[0]) is nn.Conv2d


def test_importing_the_models_imports_no_optional_library():
    code = (
        "import sys, pushpull_conv.models; "
        "print([name for name in ('timm', 'torchvision', 'safetensors', 'lightning') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
