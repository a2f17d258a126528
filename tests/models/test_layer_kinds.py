"""The comparison layers in whole networks: what changes, what stays, and what is refused."""

import json

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pushpull_conv.comparison_layers import BlurPool2d, BlurPoolConv2d, BlurredConv2d, VariedPushPullConv2d
from pushpull_conv.errors import InputError
from pushpull_conv.models import ModelSpec, apply_layer_, create_model, load_checkpoint, save_checkpoint
from pushpull_conv.models.layer_kinds import LAYER_KINDS


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "torchvision:resnet50"])
def test_every_weight_stays_and_keeps_its_name(kind, name):
    torch.manual_seed(5)
    plain = create_model(name, num_classes=3)
    torch.manual_seed(5)
    changed = create_model(name, num_classes=3, layer={"kind": kind})
    state, expected = changed.state_dict(), plain.state_dict()
    assert {key.rpartition(".")[2] for key in state.keys() - expected.keys()} <= {"alpha", "filter", "surround"}
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    x = torch.randn(2, 3, 64, 64)
    shapes = {}
    for network in (plain, changed):
        network.layer3.register_forward_hook(lambda module, inputs, output, own=network: shapes.update({own: output}))
        assert network(x).shape == (2, 3)
    assert shapes[plain].shape == shapes[changed].shape
    assert not torch.allclose(shapes[plain], shapes[changed])


def test_a_blurred_resnet50_convolves_no_pixel_of_a_shortcut_that_is_dropped():
    """By hand: 4.09 G multiply-adds, 0.35 G more for the stem, 1.04 G for three 3 x 3 at stride 1, 0.01 G to blur."""
    with torch.device("meta"):
        network = create_model("torchvision:resnet50", num_classes=1000, layer={"kind": "blurred-conv"})
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(5.50, abs=0.005)


def blurred(x):
    """Zhang's Tri-3 and a subsampling by 2, from torch's own parts."""
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=x.shape[1])


def dense(conv, x):
    """The response of a strided convolution before its subsampling."""
    return F.conv2d(x, conv.weight, conv.bias, 1, conv.padding)


def test_blurpool_in_a_resnet_is_zhangs_order_of_operations():
    torch.manual_seed(0)
    plain = create_model("resnet18", num_classes=3).eval()
    network = create_model("resnet18", num_classes=3, layer={"kind": "blurpool"}).eval()
    network.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    stem = plain.bn1(dense(plain.conv1, x)).relu()
    pooled = blurred(F.max_pool2d(blurred(stem), 3, 1, 1))
    torch.testing.assert_close(network.maxpool(network.relu(network.bn1(network.conv1(x)))), pooled)
    block, x = plain.layer2[0], torch.randn(1, 64, 16, 16)
    inner = block.bn2(dense(block.conv2, blurred(block.bn1(dense(block.conv1, x)).relu())))
    shortcut = block.downsample[1](dense(block.downsample[0], blurred(x)))
    torch.testing.assert_close(network.layer2[0](x), (inner + shortcut).relu(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", [nn.Identity(), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(4, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_blurpool_follows_a_stem_of_other_strides(pool, stride):
    torch.manual_seed(0)
    network = create_model("resnet18", num_classes=3).eval()
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, stride, 1, bias=False), pool
    x = torch.randn(1, 3, 48, 48)
    response = dense(network.conv1, x).relu()
    if stride == 2:
        response = blurred(response)
    if isinstance(pool, nn.MaxPool2d):
        response = F.max_pool2d(response, pool.kernel_size, 1, pool.padding)
        response = response if pool.stride == 1 else BlurPool2d(3, pool.stride)(response)
    apply_layer_(network, {"kind": "blurpool"})
    torch.testing.assert_close(network.maxpool(network.conv1(x).relu()), response)


def test_blurpool_in_a_cifar_resnet_changes_blocks_and_shortcuts_and_not_the_stem():
    torch.manual_seed(0)
    plain = create_model("resnet20", num_classes=3).eval()
    network = create_model("resnet20", num_classes=3, layer={"kind": "blurpool"}).eval()
    network.load_state_dict(plain.state_dict())
    assert repr(network.conv1) == repr(plain.conv1)
    kinds = {name: type(module) for name, module in network.named_modules() if "Blur" in type(module).__name__}
    assert kinds == {
        "layer2.0.conv2": BlurPoolConv2d, "layer2.0.subsample": BlurPool2d,
        "layer3.0.conv2": BlurPoolConv2d, "layer3.0.subsample": BlurPool2d,
    }  # fmt: skip
    block, x = plain.layer2[0], torch.randn(1, 16, 16, 16)
    inner = block.bn2(dense(block.conv2, blurred(block.bn1(dense(block.conv1, x)).relu())))
    shortcut = F.pad(blurred(x), (0, 0, 0, 0, 8, 8))
    torch.testing.assert_close(network.layer2[0](x), (inner + shortcut).relu(), atol=1e-5, rtol=1e-4)


def test_blurred_convolutions_are_the_first_and_the_strided():
    network = create_model("resnet20", num_classes=3, layer={"kind": "blurred-conv", "blur_kernel_size": 5})
    changed = {name: module for name, module in network.named_modules() if isinstance(module, BlurredConv2d)}
    assert {name: conv.stride for name, conv in changed.items()} == {
        "conv1": (1, 1), "layer2.0.conv1": (2, 2), "layer3.0.conv1": (2, 2),
    }  # fmt: skip
    assert {conv.blur_kernel_size for conv in changed.values()} == {5}
    assert [type(network.get_submodule(f"layer{i}.0.subsample")).__name__ for i in (1, 2, 3)] == [
        "Subsample", "BlurPool2d", "BlurPool2d",
    ]  # fmt: skip
    deep = create_model("torchvision:mobilenet_v2", num_classes=3, layer={"kind": "blurred-conv"})
    strided = [module for module in deep.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)]
    assert len(strided) == 5
    assert all(isinstance(module, BlurredConv2d) for module in strided)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kind": "upsampled-pull", "scale": 3}, "scale is 3"),
        ({"kind": "blurred-conv", "blur_kernel_size": 9}, "blur kernel_size is 9"),
        ({"kind": "blurred-conv"}, "'layer2.0.downsample.0' .* has hooks"),
        ({"kind": "blurpool", "blur_kernel_size": 9}, "blur kernel_size is 9"),
        ({"kind": "blurpool"}, "'layer2.0.downsample.0' .* has hooks"),
        ({"kind": "varied-push-pull", "where": ["layer1.*.conv1", "*.downsample.0"]}, "has hooks"),
        ({"kind": "varied-push-pull", "blur": "blurpool", "avg_kernel_sizes": [3, 4]}, "avg_kernel_size is 4"),
        ({"kind": "varied-push-pull", "blur": "blurpool"}, "has hooks"),
        ({"kind": "varied-push-pull", "blur": "blurred-conv"}, "has hooks"),
        ({"kind": "varied-push-pull", "blur": "blurpool", "where": ["layer1.0.conv1"]}, "where and blur 'blurpool'"),
        ({"kind": "varied-push-pull", "blur": "blurpol"}, "unknown blur 'blurpol'; did you mean 'blurpool'"),
    ],
)  # fmt: skip
def test_a_network_that_is_refused_is_left_as_it_was(layer, message):
    network = create_model("torchvision:resnet18", num_classes=3)
    if "hooks" in message:
        network.layer2[0].downsample[0].register_forward_hook(lambda module, inputs, output: output)
    before = repr(network)
    with pytest.raises(InputError, match=message):
        apply_layer_(network, layer)
    assert repr(network) == before


@pytest.mark.parametrize("layer", [{"kind": kind} for kind in LAYER_KINDS if kind != "blurpool"])
def test_a_convolution_alone_is_no_network(layer):
    with pytest.raises(InputError, match="network is itself a Conv2d, in whose place nothing can be put; build"):
        apply_layer_(nn.Conv2d(3, 4, 3), layer)


def test_a_stem_that_subsamples_and_has_no_place_for_the_blur_is_refused():
    network = create_model("resnet20", num_classes=3)
    network.conv1.stride = (2, 2)
    before = repr(network)
    with pytest.raises(InputError, match=r"needs a CifarResNet whose first convolution has stride 1, not \(2, 2\)"):
        apply_layer_(network, {"kind": "blurpool"})
    assert repr(network) == before


def test_a_shared_convolution_is_not_blurred():
    shared = nn.Conv2d(4, 4, 3, stride=2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), shared, shared)
    with pytest.raises(InputError, match="is shared by 1, 2"):
        apply_layer_(network, {"kind": "blurred-conv"})
    assert [type(module) for module in network] == [nn.Conv2d] * 3


def test_the_varied_unit_goes_where_patterns_say_and_with_a_blur():
    layer = {"kind": "varied-push-pull", "where": ["layer1.*.conv1", "layer2.0.conv2"], "avg_kernel_sizes": [3, 5]}
    network = create_model("resnet20", num_classes=3, layer=layer)
    varied = [name for name, module in network.named_modules() if isinstance(module, VariedPushPullConv2d)]
    assert varied == ["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer1.2.conv1", "layer2.0.conv2"]
    blurred = create_model("resnet18", num_classes=3, layer={"kind": "varied-push-pull", "blur": "blurpool"})
    assert isinstance(blurred.conv1, VariedPushPullConv2d)
    assert blurred.conv1.stride == (1, 1)  # the subsampling moved into the blurs
    assert isinstance(blurred.layer2[0].conv2, BlurPoolConv2d)
    assert blurred(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_the_varied_unit_is_blurred_where_its_convolution_would_be():
    layer = {"kind": "varied-push-pull", "where": ["layer1.0.conv1", "layer2.0.conv1"]}
    layer |= {"blur": "blurred-conv", "blur_kernel_size": 5}
    network = create_model("resnet20", num_classes=3, layer=layer)
    units = {name: module for name, module in network.named_modules() if isinstance(module, VariedPushPullConv2d)}
    assert {name: unit.blur_kernel_size for name, unit in units.items()} == {
        "conv1": 5, "layer1.0.conv1": None, "layer2.0.conv1": 5,
    }  # fmt: skip
    assert isinstance(network.layer3[0].conv1, BlurredConv2d)
    assert isinstance(network.layer2[0].subsample, BlurPool2d)


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_a_checkpoint_rebuilds_the_network(tmp_path, kind):
    spec = ModelSpec("resnet20", 3, None, None, (0.1,) * 3, (0.2,) * 3, layer={"kind": kind})
    classifier = spec.build().eval()
    save_checkpoint(tmp_path / "model.safetensors", classifier, spec)
    loaded, stored = load_checkpoint(tmp_path / "model.safetensors")
    assert stored == spec
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded(images), classifier(images))


def test_a_checkpoint_written_before_there_were_layers_loads(tmp_path):
    spec = ModelSpec("resnet20", 3, None, {"avg_kernel_size": 3}, (0.1,) * 3, (0.2,) * 3, ("a", "b", "c"))
    old = {name: value for name, value in vars(spec).items() if name != "layer"}
    tensors = spec.build().network.state_dict()
    metadata = {"pushpull_conv": json.dumps(old)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata=metadata)
    assert load_checkpoint(tmp_path / "model.safetensors")[1] == spec


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("resnet20", {"kind": "suround"}, "unknown layer kind 'suround'; did you mean 'surround'"),
        ("resnet20", {"sigma": 1.0}, "layer has no kind; allowed: upsampled-pull"),
        ("resnet20", {"kind": "surround", "sigm": 1}, "setting of layer 'surround' 'sigm'; did you mean 'sigma'"),
        ("resnet20", {"kind": "upsampled-pull", "scale": 3}, "scale is 3; allowed: 1 to 2"),
        ("resnet20", {"kind": "blurpool", "blur_kernel_size": 1}, "blur kernel_size is 1"),
        ("resnet20", {"kind": "varied-push-pull", "where": ["stage1.*"]}, r"where has 'stage1.\*', which fits no conv"),
        (
            "resnet20", {"kind": "varied-push-pull", "where": "layer1.*.conv1"},
            r"where is 'layer1.\*.conv1'; give several as a list, one as \['layer1.\*.conv1'\]",
        ),
        ("resnet20", {"kind": "varied-push-pull", "where": None}, "where is None; give several as a list"),
        (
            "resnet20", {"kind": "varied-push-pull", "avg_kernel_sizes": 3},
            r"avg_kernel_sizes is 3; give several as a list, one as \[3\]",
        ),
        ("resnet20", {"kind": "blurpool", "blur_kernel_size": 3.0}, "blur kernel_size is 3.0; allowed: 2 to 7"),
        (
            "resnet20", {"kind": "varied-push-pull", "blur_kernel_size": 5},
            "blur_kernel_size is 5 and blur is not given; choose blur 'blurpool' or 'blurred-conv'",
        ),
        ("timm:resnet18", {"kind": "blurpool"}, "not ResNet: the blur must follow the activation"),
        ("torchvision:mobilenet_v2", {"kind": "blurpool"}, "not MobileNetV2"),
        ("torchvision:alexnet", {"kind": "blurred-conv"}, r"but 'features.0' has \(4, 4\)"),
        ("timm:tf_efficientnet_b0", {"kind": "surround"}, "'conv_stem' .Conv2dSame. is not a plain torch.nn.Conv2d"),
        ("timm:repvgg_a0", {"kind": "surround"}, "2 first convolutions"),
    ],
)  # fmt: skip
def test_bad_input_is_named(name, layer, message):
    with pytest.raises(InputError, match=message) as error, torch.device("meta"):
        create_model(name, num_classes=3, layer=layer)
    assert "\n" not in str(error.value)


def test_pushpull_and_layer_exclude_each_other():
    with pytest.raises(InputError, match="pushpull and layer are both given"):
        create_model("resnet20", num_classes=3, pushpull={}, layer={"kind": "surround"})
