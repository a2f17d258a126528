"""The names in timm's registry build timm's networks with the unit, whatever timm's own arguments."""

import warnings

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from pushpull_conv import InputError, PushPullConv2d, create_model
from pushpull_conv.interop.timm_models import ARCHITECTURES, register_pushpull


def units(network):
    return [module for module in network.modules() if isinstance(module, PushPullConv2d)]


def test_timm_lists_them_by_the_rule():
    names = timm.list_models("*_pp[35]")
    assert set(names) >= {f"{architecture}_pp{size}" for architecture in ARCHITECTURES for size in (3, 5)}
    assert {"resnet18_pp3", "resnet34_pp3", "resnet50_pp5", "resnet101_pp5", "convnext_tiny_pp3"} <= set(names)
    assert not timm.list_pretrained("*_pp[35]")
    assert timm.list_models(module="timm_models")


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_name_builds_the_architecture_with_the_unit(architecture, size):
    with torch.device("meta"):
        network = timm.create_model(f"{architecture}_pp{size}", num_classes=7)
        plain = timm.create_model(architecture, num_classes=7)
        (unit,) = units(network)
        assert unit.avg_kernel_size == size
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    shapes = {name: value.shape for name, value in network.state_dict().items() if not name.endswith("alpha")}
    assert shapes == {name: value.shape for name, value in plain.state_dict().items()}
    assert network.pretrained_cfg["architecture"] == f"{architecture}_pp{size}"
    assert network.pretrained_cfg["classifier"] == plain.pretrained_cfg["classifier"]


def test_they_compute_what_create_model_makes():
    torch.manual_seed(0)
    ours = create_model("timm:resnet18", num_classes=10, pushpull={"avg_kernel_size": 5, "alpha": 0.5}).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18_pp5", num_classes=10, alpha=0.5).eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(theirs(images), ours(images))


def test_arguments_of_timm_and_of_the_unit_are_honoured():
    network = timm.create_model("resnet18_pp3", num_classes=4, in_chans=1, trainable_alpha=True, drop_rate=0.5)
    (unit,) = units(network)
    assert unit.in_channels == 1
    assert isinstance(unit.alpha, torch.nn.Parameter)
    assert network.drop_rate == 0.5
    assert network(torch.rand(1, 1, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny", "mobilenetv3_large_100"])
def test_features_come_from_behind_the_unit(architecture):
    network = timm.create_model(f"{architecture}_pp3", features_only=True)
    assert len(units(network)) == 1
    plain = timm.create_model(architecture, features_only=True)
    images = torch.rand(1, 3, 64, 64)
    assert [part.shape for part in network(images)] == [part.shape for part in plain(images)]


def test_timms_data_configuration_is_the_architectures():
    config = timm.data.resolve_model_data_config(timm.create_model("convnext_tiny_pp3"))
    assert config["mean"] == get_pretrained_cfg("convnext_tiny").mean
    assert config["input_size"] == (3, 224, 224)


def test_weights_of_ones_own_come_back_through_timm(tmp_path):
    torch.manual_seed(0)
    trained = timm.create_model("resnet18_pp3", num_classes=5, trainable_alpha=True).eval()
    timm.models.save_for_hf(trained, tmp_path, model_args={"trainable_alpha": True}, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again(images), trained(images))
    assert units(again)[0].alpha.equal(units(trained)[0].alpha)
    smaller = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=2)
    assert smaller.fc.out_features == 2
    assert units(smaller)[0].weight.equal(units(trained)[0].weight)


@pytest.mark.parametrize("architecture", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_weights_of_ones_own_are_fitted_to_other_images_as_timm_fits_them(tmp_path, architecture):
    register_pushpull(architecture)
    weights = {}
    for name in (architecture, f"{architecture}_pp3"):
        torch.manual_seed(0)
        timm.models.save_for_hf(timm.create_model(name, num_classes=4), tmp_path / name, safe_serialization=True)
        weights[name] = timm.create_model(f"local-dir:{tmp_path / name}", pretrained=True, img_size=96).state_dict()
    plain, ours = weights.values()
    assert all(torch.equal(ours[name], value) for name, value in plain.items())
    saved = timm.models.load_state_dict(str(tmp_path / architecture / "model.safetensors"))
    assert any(saved[name].shape != value.shape for name, value in plain.items())


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_weights_of_every_family_come_back(tmp_path, architecture):
    register_pushpull(architecture)
    trained = timm.create_model(f"{architecture}_pp3", num_classes=4)
    timm.models.save_for_hf(trained, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.state_dict().items())


def test_what_cannot_be_built_is_said():
    with pytest.raises(InputError, match="'resnet18_pp3' has no published weights; train it, or fine-tune from"):
        timm.create_model("resnet18_pp3", pretrained=True)
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        register_pushpull("resnet_50")
    with pytest.raises(InputError, match=r"'resnet18\.a1_in1k'.*did you mean 'resnet18'"):
        register_pushpull("resnet18.a1_in1k")
    assert not timm.list_models("resnet18.a1_in1k_pp*")
    with pytest.raises(InputError, match="is a push-pull variant already; give the plain architecture, 'resnet18'"):
        register_pushpull("resnet18_pp3")
    assert not timm.list_models("resnet18_pp3_pp*")


def test_any_other_architecture_can_be_registered():
    assert register_pushpull("resnet26d") == ["resnet26d_pp3", "resnet26d_pp5"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # timm warns of a name that is registered again
        assert register_pushpull("resnet26d") == ["resnet26d_pp3", "resnet26d_pp5"]
    with torch.device("meta"):
        (unit,) = units(timm.create_model("resnet26d_pp3"))
    assert unit.kernel_size == (3, 3)
