import copy
import functools
import subprocess
import sys
import tempfile
from unittest import mock

import pytest
import timm
import torch
import torch.distributed as dist
import torchvision
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.functional import push_pull_conv2d_reference
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import SwapReport, apply_layer_, create_model, swap_first_conv_
from pushpull_conv.models.timm_convs import TimmPushPullConv2d
from steps import refuses

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
    ("tf_mobilenetv3_small_minimal_100", "conv_stem", 32),
    ("nf_regnet_b0", "stem.conv", 64),
    ("resnetv2_50x1_bit", "stem.conv", 32),
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


class Scaled(ScaledStdConv2dSame):
    """timm recognises its kinds by their exact class; a subclass may compute something else."""


@pytest.mark.parametrize(
    "build",
    [
        lambda: Conv2dSame(3, 8, 3, stride=2),
        lambda: Conv2dSame(3, 8, (2, 5), stride=(3, 1), dilation=(1, 2), bias=False),
        lambda: StdConv2d(3, 8, 7, stride=2, bias=True),
        lambda: StdConv2dSame(3, 8, 7, stride=2),
        lambda: StdConv2dSame(3, 8, 3),  # stride 1: the padding is known beforehand
        lambda: ScaledStdConv2d(3, 8, 3, stride=2, gamma=1.7, gain_init=0.6),
        lambda: ScaledStdConv2dSame(3, 8, 3, stride=2, gamma=1.7, gain_init=0.6),
    ],
)
@pytest.mark.parametrize("size", [(17, 32), (32, 33)])
def test_a_unit_over_a_timm_convolution_prepares_input_and_weights_as_that_does(build, size):
    torch.manual_seed(0)
    conv = build().double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    unit = swap_first_conv_(copy.deepcopy(conv), avg_kernel_size=5, alpha=0.0)[0]
    shift = 0 if conv.bias is None else conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(unit(x), (conv(x) - shift).relu() + shift, atol=1e-9, rtol=1e-7)

    # The pull response through timm's own code: its weights are those that it convolves unit impulses with.
    inhibited = swap_first_conv_(copy.deepcopy(conv), avg_kernel_size=5, alpha=0.7)[0]
    weight, padded = [], []
    with mock.patch("torch.nn.functional.conv2d", lambda x, w, *rest: weight.append(w) or padded.append(x) or x):
        conv(x)
    expected = push_pull_conv2d_reference(
        padded[0], weight[0], conv.bias, 0.7, avg_kernel_size=5,
        stride=conv.stride, padding=conv.padding, dilation=conv.dilation,
    )  # fmt: skip
    torch.testing.assert_close(inhibited(x), expected, atol=1e-9, rtol=1e-7)
    assert {*conv.state_dict(), "alpha"} == {*inhibited.state_dict()}


def test_a_unit_over_timm_convolutions_takes_a_plain_one_too():
    conv, x = nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.randn(1, 3, 9, 9)
    assert torch.equal(TimmPushPullConv2d.from_conv2d(conv)(x), PushPullConv2d.from_conv2d(conv)(x))
    with pytest.raises(InputError, match="conv is a OwnConv"):
        TimmPushPullConv2d.from_conv2d(OwnConv(3, 4, 3))


def test_a_unit_over_a_timm_convolution_keeps_its_parameters_and_can_be_copied():
    conv = ScaledStdConv2dSame(3, 8, 3, stride=2)
    unit, _ = swap_first_conv_(conv, trainable_alpha=True)
    assert (unit.weight, unit.bias, unit.gain) == (conv.weight, conv.bias, conv.gain)
    assert {name for name, _ in unit.named_parameters()} == {"weight", "bias", "gain", "alpha"}
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(copy.deepcopy(unit)(x), unit(x))
    with pytest.raises(InputError, match=r"'' .Scaled. is not a plain torch.nn.Conv2d"):
        swap_first_conv_(Scaled(3, 8, 3))


@pytest.mark.parametrize(
    ("conv", "prepared"),
    [
        (nn.Conv2d(3, 8, 3), ""),
        (Conv2dSame(3, 8, 3, stride=2), ", pads_same=True"),
        (StdConv2d(3, 8, 7, eps=1e-5), ", epsilon=1e-05"),
        (StdConv2dSame(3, 8, 7, stride=2), ", pads_same=True, epsilon=1e-06"),
        (ScaledStdConv2d(3, 8, (3, 4), gamma=1.5), ", epsilon=1e-06, scale=0.25"),  # 1.5 / sqrt(36)
    ],
)
def test_a_unit_tells_how_it_prepares_input_and_weights(conv, prepared):
    """From what layers print it is told whether two networks compute the same."""
    unit, _ = swap_first_conv_(conv)
    assert unit.extra_repr().endswith(f", avg_kernel_size=3, alpha=1{prepared}")


def test_a_convolution_may_be_named():
    network = timm.create_model("repvgg_a0", num_classes=3)
    for name in ("stem.conv_kxk.conv", "stem.conv_1x1.conv"):
        assert swap_first_conv_(network, name=name)[1].name == name
        assert isinstance(network.get_submodule(name), PushPullConv2d)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(InputError, match=r"unknown convolution 'stem.conv_1x1.con'; did you mean 'stem.conv_1x1.conv'"):
        swap_first_conv_(network, name="stem.conv_1x1.con")
    with pytest.raises(InputError, match=r"'stem.conv_kxk.conv' .PushPullConv2d. is a push-pull unit already"):
        swap_first_conv_(network, name="stem.conv_kxk.conv")


def trained(network, optimizer):
    """One step; which parameters have moved."""
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    return {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_built_before_trains_alpha_only_if_it_is_given(kind):
    for given, moved in ((False, {"0.weight", "0.bias"}), (True, {"0.weight", "0.bias", "0.alpha"})):
        network = nn.Sequential(nn.Conv2d(3, 8, 3))
        optimizer = kind(network.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
        swap_first_conv_(network, trainable_alpha=True, optimizer=optimizer if given else None)
        assert trained(network, optimizer) == moved
        schedule.step()
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3])


@pytest.mark.parametrize("build", [lambda: nn.Conv2d(3, 8, 3), lambda: ScaledStdConv2dSame(3, 8, 3, stride=2)])
def test_a_given_optimizer_has_alpha_where_one_built_afterwards_has_it(build):
    """What it stored is loaded by place, so another order would give each parameter the state of another."""
    network = nn.Sequential(build(), nn.BatchNorm2d(8))
    optimizer = torch.optim.AdamW(network.named_parameters())
    swap_first_conv_(network, trainable_alpha=True, optimizer=optimizer)
    trained(network, optimizer)
    (group,) = optimizer.param_groups
    assert group["param_names"] == [name for name, _ in network.named_parameters()]
    assert all(one is other for one, other in zip(group["params"], network.parameters(), strict=True))
    restored = torch.optim.AdamW(network.parameters())
    restored.load_state_dict(optimizer.state_dict())
    for parameter in network.parameters():
        assert torch.equal(restored.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_alpha_joins_the_group_of_its_weight():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    groups = [{"params": network[1].parameters()}, {"params": network[0].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    swap_first_conv_(network, trainable_alpha=True, optimizer=optimizer)
    assert any(parameter is network[0].alpha for parameter in optimizer.param_groups[1]["params"])
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 3]


def test_the_optimizer_of_another_network_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(InputError, match="optimizer SGD does not train the first convolution"):
        swap_first_conv_(network, trainable_alpha=True, optimizer=optimizer)
    assert type(network[0]) is nn.Conv2d


def test_a_weight_that_is_tied_to_another_layer_stays_tied():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    network[1].weight = network[0].weight
    swap_first_conv_(network, name="0")
    assert network[0].weight is network[1].weight


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_every_torchvision_classifier_has_one_stem():
    names = torchvision.models.list_models(module=torchvision.models)
    for name in (name for name in names if not name.startswith("regnet")):  # these read tensors, which meta has not
        with torch.device("meta"):
            network = torchvision.models.get_model(name)
        _, report = swap_first_conv_(network)
        assert report.replaced.in_channels == 3, name


@pytest.mark.parametrize(
    ("name", "stem"), [("convnext_atto", "stem_0"), ("darknet17", "stem_conv1.conv"), ("vit_tiny_patch16_224", None)]
)
def test_timms_features_come_from_behind_the_unit(name, stem):
    network = timm.create_model(name, features_only=True)
    images = torch.rand(1, 3, 224, 224)
    shapes = [part.shape for part in network(images)]
    assert swap_first_conv_(network)[1].name == (stem or "model.patch_embed.proj")
    assert [part.shape for part in network(images)] == shapes


def test_a_plain_network():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Conv2d(4, 8, 3))
    _, report = swap_first_conv_(network, alpha=0.25)
    assert report.name == "0.0"
    assert isinstance(network[0][0], PushPullConv2d)
    assert network[0][0].alpha.unique().tolist() == [0.25]
    assert type(network[1]) is nn.Conv2d


def test_the_head_may_be_registered_before_the_stem_whose_name_is_then_needed():
    network = nn.ModuleDict({"head": nn.Conv2d(8, 10, 1), "gate": nn.Conv2d(1, 8, 1), "stem": nn.Conv2d(3, 8, 3)})
    with pytest.raises(
        InputError, match=r"of 3 input channels \('stem'\), and it is not the first, 'head'; say with na"
    ):
        swap_first_conv_(network)
    assert swap_first_conv_(network, name="stem")[1].name == "stem"


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


def hooked(register="register_forward_hook"):
    conv = nn.Conv2d(3, 4, 3)
    getattr(conv, register)(lambda *args: None)
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


def without_first_conv():
    network = timm.create_model("resnet10t")
    network.pretrained_cfg = {"first_conv": []}
    return network


def distributed():
    """A network in a DistributedDataParallel of one process."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            return nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(3, 4, 3)))
        finally:
            dist.destroy_process_group()


shared = nn.Conv2d(3, 3, 3)


def test_timms_name_of_a_stem_that_was_built_otherwise_leads_to_its_first_convolution():
    network = timm.create_model("resnet18", stem_type="deep", stem_width=8, num_classes=2)
    assert swap_first_conv_(network)[1].name == "conv1.0"
    network.pretrained_cfg = {"first_conv": "layer1"}
    with pytest.raises(InputError, match="none of 3 or 1 input channels"):
        swap_first_conv_(network)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(3, 4), "Linear has no torch.nn.Conv2d; choose one"),
        (
            lambda: nn.Sequential(nn.Conv2d(4, 8, 3)),
            r"has 1 convolutions and none of 3 or 1 input channels \(0\); say with name= which one",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Conv2d(3, 8, 1)),
            r"one convolution of 3 input channels \('1'\), and it is not the first, '0'; say with name= which one",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.Sequential(nn.Conv2d(1, 1, 7))),
            r"one convolution of 1 input channels \('1.0'\), and it is not the first, '0'; say with name= which one",
        ),
        (lambda: nn.Sequential(nn.Conv1d(3, 8, 3)), "has no torch.nn.Conv2d"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)), r"2 convolutions of 3 input channels \(0, 1\)"),
        (
            lambda: swap_first_conv_(nn.Sequential(nn.Conv2d(3, 8, 3)))[0],
            "'0' .PushPullConv2d. is a push-pull unit already",
        ),
        (lambda: nn.Sequential(OwnConv(3, 8, 3)), "'0' .OwnConv. is not a plain torch.nn.Conv2d"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "has 1 convolutions and none of 3 or 1"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), *(nn.Conv2d(3, 8, 3) for _ in range(6))), "7 convolutions.*3 more"),
        (lambda: timm.create_model("naflexvit_base_patch16_gap"), "'embeds.proj' .Linear. is no convolution"),
        (without_first_conv, "ResNet says that it has no first convolution"),
        (lambda: timm.create_model("repvgg_a0"), "RepVGG|ByobNet.*2 first convolutions .stem.conv_kxk.conv"),
        (misnamed, "names 'stem.conv' as its first convolution and has no such module"),
        (lambda: nn.Sequential(shared, shared), "is shared by 0, 1; give each place its own"),
        (hooked, "has hooks or a replaced forward"),
        *(
            (
                functools.partial(hooked, f"register_{hook}_hook"),
                "has hooks or a replaced forward, which the swap would",
            )
            for hook in ("state_dict_post", "state_dict_pre", "load_state_dict_pre", "load_state_dict_post")
        ),
        (patched, "has hooks or a replaced forward"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))),
            "is not a plain torch.nn.Conv2d",
        ),
        (distributed, "wrapped in a DistributedDataParallel; change its layers before"),
        (lambda: nn.Sequential(torch.compile(nn.Conv2d(3, 4, 3), backend="eager")), "wrapped in a OptimizedModule"),
        (lambda: nn.DataParallel(nn.Conv2d(3, 4, 3)), "wrapped in a DataParallel; change its layers before"),
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


@pytest.mark.parametrize(
    ("model", "kind"), [(torchvision.models.resnet18, "function"), (nn.Sequential, "type"), ("resnet18", "str")]
)
@pytest.mark.parametrize("change", [swap_first_conv_, functools.partial(apply_layer_, layer={"kind": "surround"})])
def test_a_network_that_is_yet_to_be_built_is_refused(change, model, kind):
    refuses(change, rf"model is a {kind}, not a network; give one that is built, as by .*resnet18\(\)", model)


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
