import argparse
import dataclasses
import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from pushpull_conv.comparison_layers import BlurPool2d
from pushpull_conv.errors import InputError
from pushpull_conv.models import (
    Classifier,
    ModelSpec,
    create_model,
    find_checkpoint,
    load_checkpoint,
    load_weights_,
    save_checkpoint,
)
from steps import refuses

SPEC = ModelSpec(
    name="resnet20",
    num_classes=3,
    stem="cifar",
    pushpull={"avg_kernel_size": 5, "alpha": 0.5},
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    classes=("cat", "dog", "café"),
)
IMAGES = torch.arange(2 * 3 * 32 * 32).remainder(251).reshape(2, 3, 32, 32).to(torch.uint8)


class Attack:
    """What a malicious file holds: unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def trained_classifier(spec=SPEC):
    classifier = spec.build()
    classifier.network(torch.randn(4, 3, 32, 32))  # moves the running statistics of the batch norms
    return classifier.eval()


@pytest.fixture
def checkpoint(tmp_path):
    classifier = trained_classifier()
    save_checkpoint(tmp_path / "run" / "model.safetensors", classifier, SPEC)
    return tmp_path / "run" / "model.safetensors", classifier


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"model\.safetensors' cannot be written: No space left on device; free"):
        save_checkpoint(tmp_path / "model.safetensors", SPEC.build(), SPEC)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_gives_back_the_classifier_and_its_spec(checkpoint):
    path, classifier = checkpoint
    loaded, spec = load_checkpoint(path)
    assert spec == SPEC
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), classifier(IMAGES))
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_a_network_that_asks_for_the_version_of_its_weights_is_given_back(tmp_path):
    spec = ModelSpec("torchvision:mnasnet0_5", 3, None, None, (0.5,) * 3, (0.25,) * 3)
    classifier = spec.build().eval()
    save_checkpoint(tmp_path / "model.safetensors", classifier, spec)
    again, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert torch.equal(again.eval()(IMAGES), classifier(IMAGES))


def test_the_spec_is_json_that_others_can_read(checkpoint):
    with safetensors.safe_open(checkpoint[0], framework="pt") as file:
        stored = json.loads(file.metadata()["pushpull_conv"])
    assert stored["name"] == "resnet20"
    assert stored["pushpull"] == {"avg_kernel_size": 5, "alpha": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": np.int64(3)},
        {"num_classes": torch.tensor(3), "mean": (np.float32(0.5),) * 3},
        {"std": torch.tensor([0.25, 0.5, 0.75])},
        {"pushpull": {"avg_kernel_size": np.int32(5), "alpha": torch.linspace(0, 2, 16, requires_grad=True)}},
        {"pushpull": {"alpha": np.linspace(0, 2, 16), "trainable_alpha": np.bool_(False)}},
        {"pushpull": None, "layer": {"kind": "surround", "alpha": np.float64(0.5)}},
    ],
)
def test_numbers_of_numpy_and_pytorch_are_stored_as_numbers(tmp_path, change):
    spec = dataclasses.replace(SPEC, **change)
    classifier = trained_classifier(spec)
    save_checkpoint(tmp_path / "model.safetensors", classifier, spec)
    loaded, again = load_checkpoint(tmp_path / "model.safetensors")
    assert torch.equal(loaded(IMAGES), classifier(IMAGES))
    assert (again.num_classes, again.pushpull, again.layer) == (3, spec.pushpull, spec.layer)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        stored = json.loads(file.metadata()["pushpull_conv"])
    assert type(stored["num_classes"]) is int
    if "alpha" in (change.get("pushpull") or {}):
        assert stored["pushpull"]["alpha"] == pytest.approx([place * 2 / 15 for place in range(16)], abs=1e-6)


@pytest.mark.parametrize("change", ["channels_last", "compiled", "compiled as a whole", "tied", "half"])
def test_checkpoints_of_networks_in_other_forms(tmp_path, change):
    classifier = trained_classifier()
    if change == "channels_last":
        classifier = classifier.to(memory_format=torch.channels_last)
    elif change == "compiled":
        classifier.network = torch.compile(classifier.network, backend="eager")
    elif change == "compiled as a whole":
        classifier = torch.compile(classifier, backend="eager")
    elif change == "tied":
        classifier.network.layer1[0].conv1.weight = classifier.network.layer1[0].conv2.weight
    else:
        classifier = classifier.half()
    save_checkpoint(tmp_path / "model.safetensors", classifier, SPEC)
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.network(images), classifier.network.float()(images), atol=1e-5, rtol=1e-4)


def test_a_failed_save_leaves_the_old_file(checkpoint, monkeypatch):
    path, classifier = checkpoint
    before = path.read_bytes()

    def fail(file, content):
        file.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, classifier, SPEC)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_a_learned_strength_that_is_rectified_does_not_stand_for_a_fixed_one(tmp_path):
    """They are tensors of one name and shape."""
    fixed, learned = (
        dataclasses.replace(SPEC, pushpull=None, layer={"kind": "upsampled-pull", "trainable_alpha": trainable})
        for trainable in (False, True)
    )
    with pytest.raises(InputError, match=r"alpha rectified.* here"):
        save_checkpoint(tmp_path / "model.safetensors", learned.build(), fixed)
    save_checkpoint(tmp_path / "model.safetensors", learned.build(), learned)
    with pytest.raises(InputError, match=r"alpha rectified.* there"):
        load_weights_(fixed.build().network, tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda network: setattr(network, "fc", nn.Linear(64, 2)),
            r"'fc.weight' is \[3, 64\] there and \[2, 64\] here",
        ),
        (lambda network: delattr(network.conv1, "alpha"), r"'conv1.alpha' is \[16\] there and absent here"),
        (lambda network: setattr(network, "more", nn.Linear(1, 1)), "'more.weight' is absent there"),
        (
            lambda network: setattr(network.conv1, "avg_kernel_size", 3),
            r"'conv1' is PushPullConv2d\(.*avg_kernel_size=5\) there and PushPullConv2d\(.*avg_kernel_size=3\) here",
        ),
        (
            lambda network: setattr(network, "conv1", nn.Sequential(network.conv1, BlurPool2d(3))),
            "'conv1.weight' is .* there and absent here",
        ),
        (
            lambda network: setattr(network, "relu", nn.Sequential(nn.ReLU(), BlurPool2d(3))),
            r"'relu.1.filter' is absent there and \[1, 1, 3, 3\] here",
        ),
    ],
)
def test_a_network_that_the_spec_does_not_build_is_not_stored(checkpoint, change, message):
    path, classifier = checkpoint
    before = path.read_bytes()
    change(classifier.network)
    with pytest.raises(InputError, match=message):
        save_checkpoint(path, classifier, SPEC)
    assert path.read_bytes() == before


@pytest.mark.parametrize("wrap", [lambda network: network, torch.compile, nn.DataParallel])
def test_a_network_that_is_no_classifier_is_told_to_become_one(tmp_path, wrap):
    """It is the first thing that one tries with a network of one's own."""
    network = wrap(create_model("resnet20", num_classes=3))
    said = rf"^classifier is a {type(network).__name__}; wrap your network: Classifier\(network, mean="
    refuses(save_checkpoint, said, tmp_path / "model.safetensors", network, SPEC)


def test_a_network_that_no_spec_builds_can_be_benchmarked_from_python(tmp_path):
    network = timm.create_model("resnet18", num_classes=3, in_chans=1)
    spec = ModelSpec("timm:resnet18", 3, None, None, (0.5,), (0.25,))
    said = "what no spec builds .* cannot be stored this way: .* benchmark it from Python with evaluate"
    with pytest.raises(InputError, match=said):
        save_checkpoint(tmp_path / "model.safetensors", Classifier(network, spec.mean, spec.std), spec)


def test_a_new_head_needs_the_names_of_its_classes_or_none(tmp_path):
    """Names of the old ones would be taken for the first logits."""
    classifier, spec = load_checkpoint(find_checkpoint("cifar10-resnet20-pp3"))
    classifier.network.fc = nn.Linear(64, 12)
    with pytest.raises(InputError, match="classes has 10 names, num_classes is 12; give one name per class, or none"):
        save_checkpoint(tmp_path / "model.safetensors", classifier, dataclasses.replace(spec, num_classes=12))
    for classes in ((), tuple("abcdefghijkl")):
        told = dataclasses.replace(spec, num_classes=12, classes=classes)
        save_checkpoint(tmp_path / "model.safetensors", classifier, told)
        assert load_checkpoint(tmp_path / "model.safetensors")[1].classes == classes
    write_spec(tmp_path / "model.safetensors", {**vars(spec), "num_classes": 12})
    with pytest.raises(InputError, match="classes has 10 names, num_classes is 12"):
        load_checkpoint(tmp_path / "model.safetensors")


def test_a_normalisation_that_is_not_the_specs_is_not_stored(tmp_path):
    spec = dataclasses.replace(SPEC, mean=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match=r"spec has mean \(0\.5, 0\.5, 0\.5\), the classifier \(0\.1"):
        save_checkpoint(tmp_path / "model.safetensors", SPEC.build(), spec)
    assert list(tmp_path.iterdir()) == []
    save_checkpoint(tmp_path / "model.safetensors", SPEC.build().bfloat16(), SPEC)


@pytest.mark.parametrize(
    ("stored", "layer"), [("cifar10-resnet20-blurredconv", "BlurredConv2d"), ("cifar10-resnet20-pp5", "PushPullConv2d")]
)
def test_weights_that_learned_with_other_layers_are_refused(stored, layer):
    """Also where their tensors fit, as those of PP5 fit PP3, and those of a blurred network did without its filters."""
    file = find_checkpoint(stored)
    classifier, spec = load_checkpoint(file)
    again = spec.build().eval()
    load_weights_(again, file)
    assert torch.equal(again(IMAGES), classifier(IMAGES))
    pushpull = {"avg_kernel_size": 3} if spec.pushpull else None
    with pytest.raises(InputError, match=rf"was stored with .* in the network: 'conv1' is {layer}\(.* there and "):
        load_weights_(create_model("resnet20", num_classes=10, pushpull=pushpull), file)


def plain(name):
    return ModelSpec(name, 3, None, None, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("one", "other", "layer"),
    [
        ("timm:mobilenetv3_small_100", "timm:tf_mobilenetv3_small_100", "conv_stem"),
        ("timm:tf_mobilenetv3_small_100", "timm:mobilenetv3_small_100", "conv_stem"),
        ("timm:resnet50", "timm:resnetblur50", "layer2.0.conv2"),
    ],
)
def test_weights_of_an_architecture_with_other_strides_or_paddings_are_refused(tmp_path, one, other, layer):
    """Their tensors fit: only the convolutions tell them apart."""
    file = tmp_path / "model.safetensors"
    networks = [plain(name).build() for name in (one, other)]
    save_checkpoint(file, networks[0], plain(one))
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    message = rf"'{layer}' is \w+\(.* there and \w+\(.* here; give"
    with pytest.raises(InputError, match=f"belongs to another architecture: {message}"):
        load_weights_(networks[1], file)
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"spec builds another network than the classifier's: {message}"):
        save_checkpoint(file, networks[0], plain(other))
    assert file.read_bytes() == before


class OwnConv(nn.Conv2d):
    """A convolution of the user's own."""


def test_the_same_architecture_may_be_built_of_other_classes(tmp_path):
    """By another library, with layers for a training, or by a user who builds it himself."""
    file = tmp_path / "model.safetensors"
    first, *others = (plain(name).build().network for name in ("resnet18", "timm:resnet18", "resnet18", "resnet18"))
    others[1].conv1 = OwnConv(3, 64, 7, 2, 3, bias=False)
    others[2] = torch.fx.symbolic_trace(nn.SyncBatchNorm.convert_sync_batchnorm(others[2]))
    others.append(timm.create_model("resnet18", num_classes=3, drop_path_rate=0.2, drop_block_rate=0.1))
    for network in others:
        save_checkpoint(file, Classifier(network, (0.5,) * 3, (0.25,) * 3), plain("torchvision:resnet18"))
        load_weights_(first, file)
        assert torch.equal(first.fc.weight, network.fc.weight)
        load_weights_(network, file)


@pytest.mark.parametrize("kind", ["blurred-conv", "blurpool"])
def test_stored_weights_of_a_plain_network_go_into_one_with_a_blur(tmp_path, kind):
    source = plain("resnet20").build()
    save_checkpoint(tmp_path / "model.safetensors", source, plain("resnet20"))
    blurred = create_model("resnet20", num_classes=3, layer={"kind": kind})
    load_weights_(blurred, tmp_path / "model.safetensors")
    assert torch.equal(blurred.layer3[0].conv1.weight, source.network.layer3[0].conv1.weight)


def test_a_unit_without_settings_is_one(tmp_path):
    """Its tensors fit a unit that averages over more."""
    spec = dataclasses.replace(SPEC, pushpull={})
    save_checkpoint(tmp_path / "model.safetensors", spec.build(), spec)
    load_weights_(spec.build(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"was stored with pushpull={} in the network: 'conv1' is PushPullConv2d\("):
        load_weights_(SPEC.build(), tmp_path / "model.safetensors")


def test_saving_leaves_the_random_generator_alone(tmp_path):
    spec = ModelSpec(
        "torchvision:regnet_y_400mf", 2, None, None, (0.5,) * 3, (0.5,) * 3
    )  # not to be built without memory
    classifier, state = spec.build(), torch.get_rng_state()
    save_checkpoint(tmp_path / "model.safetensors", classifier, spec)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def targets():
    """What weights may be loaded into; compiled once, because that takes longer than all else in the tests."""
    compiled = (torch.compile(module, backend="eager") for module in (SPEC.build().eval().network, SPEC.build().eval()))
    return [SPEC.build().eval(), *compiled]


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.network.", "model.module.network.", "model._orig_mod.network.", "classifier.network."],
)
@pytest.mark.parametrize("form", ["plain.pt", "lightning.ckpt", "legacy.pth", "tensors.safetensors"])
def test_weights_load_from_any_common_file(tmp_path, targets, prefix, form):
    classifier, path = trained_classifier(), tmp_path / form
    state = {f"{prefix}{name}": value for name, value in classifier.network.state_dict().items()}
    if form == "lightning.ckpt":
        state |= {"loss.weight": torch.ones(3)} if prefix.startswith("model.") else {}
        torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}, path)
    elif form == "tensors.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "plain.pt")
    for target in targets:
        for tensor in target.state_dict().values():
            tensor.zero_()
        load_weights_(target, path)
        network = getattr(target, "network", target)
        assert torch.equal(network(IMAGES.float()), classifier.network(IMAGES.float()))


@pytest.mark.parametrize(
    "entries", [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("model_state_dict",), ("state_dict_ema",)]
)
def test_weights_load_from_where_training_scripts_put_them(tmp_path, entries):
    """The last of the entries counts; others are averages, settings and numbers."""
    source, other, target = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 3)
    states = {name: (source if name == entries[-1] else other).state_dict() for name in entries}
    settings = argparse.Namespace(lr=0.1, resume="")
    torch.save({"arch": "linear", "args": settings, "optimizer": {"state": {}}, **states}, tmp_path / "best.pth.tar")
    load_weights_(target, tmp_path / "best.pth.tar")
    assert torch.equal(target.weight, source.weight)


def test_a_state_dict_may_have_the_name_of_an_entry(tmp_path):
    source, target = nn.ParameterDict({"model": torch.ones(2)}), nn.ParameterDict({"model": torch.zeros(2)})
    torch.save(source.state_dict(), tmp_path / "plain.pt")
    load_weights_(target, tmp_path / "plain.pt")
    assert torch.equal(target["model"], source["model"])


def test_weights_of_the_research_code_load_into_a_network(tmp_path):
    network = create_model("resnet20", num_classes=3, pushpull={"trainable_alpha": True})
    state = network.state_dict()
    state["conv1.push_conv.weight"] = state.pop("conv1.weight")
    state["conv1.pull_inhibition_strength"] = state.pop("conv1.alpha").view(-1, 1, 1)
    torch.save(state, tmp_path / "old.pt")
    other = create_model("resnet20", num_classes=3, pushpull={"trainable_alpha": True})
    load_weights_(other, tmp_path / "old.pt")
    assert torch.equal(other.conv1.alpha, network.conv1.alpha)


def test_a_lightning_module_may_call_its_network_as_it_likes(tmp_path):
    network = create_model("resnet20", num_classes=3)
    state = {f"net.inner.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state | {"loss.weight": torch.ones(3)}}, tmp_path / "net.ckpt")
    other = create_model("resnet20", num_classes=3)
    load_weights_(other, tmp_path / "net.ckpt")
    assert all(value.equal(network.state_dict()[name]) for name, value in other.state_dict().items())
    two = {f"{role}.{name}": value for role in ("student", "teacher") for name, value in network.state_dict().items()}
    torch.save({"state_dict": two}, tmp_path / "two.ckpt")
    with pytest.raises(InputError, match=r"two.ckpt' holds 2 networks that fit: student\., teacher\.; store the"):
        load_weights_(other, tmp_path / "two.ckpt")


@pytest.mark.parametrize("form", ["zip", "plain pickle", "legacy"])
def test_a_malicious_pickle_is_refused_and_nothing_is_executed(tmp_path, form):
    path, made = tmp_path / "model.pt", tmp_path / "executed"
    content = {"state_dict": {"conv1.weight": torch.ones(1)}, "extra": Attack(made)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match=r"model.pt' .*refused and nothing of it was executed") as error:
        load_weights_(create_model("resnet20", num_classes=3), path)
    assert "\n" not in str(error.value)
    assert not made.exists()
    pickle.loads(pickle.dumps(Attack(made))).close()
    assert made.exists(), "the attack of this test would work"


def test_what_was_refused_in_a_pickle_is_named(tmp_path):
    torch.save({"model": {"weight": torch.ones(1)}, "args": argparse.Namespace(out=Path("out"))}, tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"best.pt' holds pathlib\S*\.\w+Path, a Python object that could run code"):
        load_weights_(nn.Linear(1, 1), tmp_path / "best.pt")


def write_spec(path, stored):
    safetensors.torch.save_file({"fc.bias": torch.ones(3)}, path, metadata={"pushpull_conv": json.dumps(stored)})


def test_files_that_are_no_checkpoint_are_named(tmp_path, checkpoint):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(InputError, match=r"bad.safetensors' does not exist"):
        load_checkpoint(path)
    path.write_bytes(checkpoint[0].read_bytes()[:-100])
    with pytest.raises(InputError, match=r"bad.safetensors' is damaged"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"bad.safetensors' is damaged"):
        load_checkpoint(path)
    safetensors.torch.save_file({"fc.bias": torch.ones(3)}, path)
    with pytest.raises(InputError, match=r"bad.safetensors' holds no model spec"):
        load_checkpoint(path)
    write_spec(path, {**vars(SPEC), "name": 3})
    with pytest.raises(InputError, match="unknown model '3'"):
        load_checkpoint(path)
    odd = [{**vars(SPEC), "mean": mean} for mean in (None, ["a", "b", "c"], "abc")]
    for stored in ({"name": "resnet20"}, ["resnet20"], *odd):
        write_spec(path, stored)
        with pytest.raises(InputError, match=r"bad.safetensors' holds no model spec"):
            load_checkpoint(path)


def test_pickles_that_hold_no_weights_are_named(tmp_path):
    network, path = create_model("resnet20", num_classes=3), tmp_path / "bad.pt"
    with pytest.raises(InputError, match=r"bad.pt' does not exist"):
        load_weights_(network, path)
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"bad.pt' is damaged"):
        load_weights_(network, path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"bad.pt' is damaged"):
        load_weights_(network, path)
    for content in ([1, 2], {"epoch": 3}, {}, torch.ones(3)):
        torch.save(content, path)
        with pytest.raises(InputError, match=r"bad.pt' holds no state dict"):
            load_weights_(network, path)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet20", {"num_classes": 10}, r"'fc.weight' is \[10, 64\] instead of \[3, 64\]"),
        ("resnet32", {}, "'layer1.3.conv1.weight' is not in the model; .*; and 70 more"),
        ("resnet20", {"pushpull": {}}, "'conv1.alpha' is not in the model"),
        ("resnet20", {"layer": {"kind": "blurred-conv"}}, "'conv1.filter' is not in the model"),
        ("torchvision:squeezenet1_1", {}, "'conv1.weight' is missing; .* 'features.0.weight' is not in the model"),
    ],
)
def test_another_architecture_is_named_with_what_differs(tmp_path, name, settings, message):
    torch.save(create_model(name, **{"num_classes": 3, **settings}).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=message) as error:
        load_weights_(create_model("resnet20", num_classes=3), tmp_path / "other.pt")
    assert "other.pt' belongs to another architecture" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings"), [("resnet20", {"num_classes": 10}), ("resnet32", {}), ("resnet20", {"pushpull": {}})]
)
def test_a_network_that_the_weights_do_not_fit_stays_as_it_was(tmp_path, name, settings):
    """Also its running statistics, tensors that share memory, and those that no file holds."""
    torch.save(create_model(name, **{"num_classes": 3, **settings}).state_dict(), tmp_path / "other.pt")
    network = create_model("resnet20", num_classes=3)
    network.layer1[0].conv1.weight = network.layer1[0].conv2.weight
    network.layer1[1].conv1.weight.data = network.layer1[1].conv2.weight.data
    network.register_buffer("own", torch.arange(3.0), persistent=False)
    network(torch.randn(4, 3, 32, 32))
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    with pytest.raises(InputError, match="belongs to another architecture"):
        load_weights_(network, tmp_path / "other.pt")
    after = [*network.parameters(), *network.buffers()]
    assert all(one is other for one, other in zip(after, tensors, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))


def test_a_layer_without_values_gets_them_from_the_file(tmp_path):
    source, target = nn.Linear(2, 3), nn.LazyLinear(3)
    torch.save(source.state_dict(), tmp_path / "linear.pt")
    load_weights_(target, tmp_path / "linear.pt")
    assert torch.equal(source.weight, target.weight)


def test_weights_load_into_any_module(tmp_path):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(source.state_dict(), tmp_path / "linear.pt")
    load_weights_(target, tmp_path / "linear.pt")
    assert torch.equal(source.weight, target.weight)
