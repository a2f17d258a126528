"""Starting from the weights of another network: what is taken over, what starts afresh, what is refused."""

from dataclasses import replace

import pytest
import torch
import torchvision
from timm.models import _builder

from pushpull_conv.errors import InputError
from pushpull_conv.models import ModelSpec, create_model, load_pretrained, save_checkpoint, with_weights
from pushpull_conv.models.layer_kinds import LAYER_KINDS

SHIPPED = "cifar10-resnet20-baseline"
OTHER = (0.5,) * 3, (0.25,) * 3


def taken_over(classifier, source, *, but=()):
    """Whether all tensors of ``source`` but those are in the network."""
    state = classifier.network.state_dict()
    return all(torch.equal(state[name], value) for name, value in source.items() if name not in but)


@pytest.mark.parametrize("change", [{"pushpull": {"avg_kernel_size": 3, "trainable_alpha": True}}]
                         + [{"layer": {"kind": kind}} for kind in LAYER_KINDS])  # fmt: skip
def test_a_changed_network_has_the_weights_of_the_plain_one(change):
    classifier, spec = with_weights(
        ModelSpec(
            **{"name": "resnet20", "num_classes": 10, "stem": None, "pushpull": None, "mean": OTHER[0], "std": OTHER[1]}
            | change
        ),
        SHIPPED,
    )
    shipped = load_pretrained(SHIPPED)
    assert taken_over(classifier, shipped.network.state_dict())
    assert type(classifier.network.conv1) is type(spec.build().network.conv1)
    assert spec.mean == pytest.approx(shipped.mean.flatten().tolist())
    assert spec.std == pytest.approx(shipped.std.flatten().tolist())


@pytest.mark.parametrize("change", [{"pushpull": {}}, {"layer": {"kind": "surround"}}])
def test_weights_that_learned_with_a_unit_or_layer_are_refused(tmp_path, change):
    spec = ModelSpec(**{"name": "resnet20", "num_classes": 10, "stem": None, "pushpull": None} | change,
                     mean=OTHER[0], std=OTHER[1])  # fmt: skip
    save_checkpoint(tmp_path / "model.safetensors", spec.build(), spec)
    with pytest.raises(InputError, match=rf"were trained with {next(iter(change))}={{.*}} in the network, and a plain"):
        with_weights(ModelSpec("resnet20", 10, None, None, *OTHER), str(tmp_path / "model.safetensors"))


def test_the_same_network_with_the_same_weights_computes_the_same():
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    classifier, _ = with_weights(ModelSpec("resnet20", 10, None, None, *OTHER), SHIPPED)
    assert torch.equal(classifier.eval()(images), load_pretrained(SHIPPED)(images))


def test_for_other_classes_the_last_layer_alone_starts_afresh_and_alike_in_every_variant():
    heads = []
    for change in (None, {"trainable_alpha": True}):
        torch.manual_seed(3)
        classifier, _ = with_weights(ModelSpec("resnet20", 4, None, change, *OTHER), SHIPPED, new_head=True)
        shipped = load_pretrained(SHIPPED).network.state_dict()
        assert taken_over(classifier, shipped, but=("fc.weight", "fc.bias"))
        heads.append(classifier.network.fc.weight)
        assert heads[-1].shape == (4, 64)
    assert torch.equal(*heads)


@pytest.mark.parametrize(
    ("known", "wanted", "rows"),
    [
        (("cat", "dog", "fox"), ("dog", "fox", "cat"), [1, 2, 0]),
        (("cat", "dog", "fox"), ("one", "two", "three"), [0, 1, 2]),
        (("cat", "dog", "fox"), ["cat", "dog", "fox"], [0, 1, 2]),
        ((), ("dog", "fox", "cat"), [0, 1, 2]),
        (("cat", "dog", "fox"), (), [0, 1, 2]),
    ],
)
def test_a_row_of_the_last_layer_is_that_of_its_class(tmp_path, known, wanted, rows):
    stored = ModelSpec("resnet20", 3, None, None, *OTHER, classes=known)
    source, file = stored.build(), str(tmp_path / "model.safetensors")
    save_checkpoint(tmp_path / "model.safetensors", source, stored)
    classifier, spec = with_weights(replace(stored, classes=wanted), file, new_head=True)
    assert torch.equal(classifier.network.fc.weight, source.network.fc.weight[rows])
    assert torch.equal(classifier.network.fc.bias, source.network.fc.bias[rows])
    assert taken_over(classifier, source.network.state_dict(), but=("fc.weight", "fc.bias"))
    assert spec.classes == wanted
    assert with_weights(replace(stored, classes=wanted), file)[1].classes == known


@pytest.mark.parametrize("greyscale", [True, False])
def test_what_the_images_are_follows_the_weights_unless_they_are_fine_tuned(tmp_path, greyscale):
    stored = ModelSpec("resnet20", 2, None, None, *OTHER, greyscale=greyscale)
    save_checkpoint(tmp_path / "model.safetensors", stored.build(), stored)
    wanted, file = replace(stored, greyscale=not greyscale), str(tmp_path / "model.safetensors")
    assert with_weights(wanted, file)[1].greyscale == greyscale
    assert with_weights(wanted, file, new_head=True)[1].greyscale != greyscale


def test_a_file_of_a_library_network_goes_with_the_normalisation_of_the_library(tmp_path):
    source = create_model("timm:mobilevit_xxs", num_classes=7).state_dict()
    torch.save({"state_dict": {f"model.{name}": value for name, value in source.items()}}, tmp_path / "mine.pt")
    spec = ModelSpec("timm:mobilevit_xxs", 3, None, {"avg_kernel_size": 5}, *OTHER)
    classifier, spec = with_weights(spec, str(tmp_path / "mine.pt"), new_head=True)
    assert taken_over(classifier, source, but=("head.fc.weight", "head.fc.bias"))
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)
    save_checkpoint(tmp_path / "model.safetensors", classifier, spec)
    again, _ = with_weights(
        ModelSpec("timm:mobilevit_xxs", 3, None, None, *OTHER), str(tmp_path / "mine.pt"), new_head=True
    )
    with pytest.raises(InputError, match="were trained with"):
        with_weights(ModelSpec("timm:mobilevit_xxs", 3, None, None, *OTHER), str(tmp_path / "model.safetensors"))
    assert torch.equal(again.network.stem.conv.weight, source["stem.conv.weight"])


def test_a_head_that_is_a_convolution_starts_afresh_too(tmp_path):
    spec = ModelSpec("torchvision:squeezenet1_1", 3, None, None, *OTHER)
    source, file = spec.build(), str(tmp_path / "model.safetensors")
    save_checkpoint(file, source, spec)
    classifier, _ = with_weights(replace(spec, num_classes=5), file, new_head=True)
    assert taken_over(classifier, source.network.state_dict(), but=("classifier.1.weight", "classifier.1.bias"))
    assert classifier.network.classifier[1].weight.shape == (5, 512, 1, 1)
    with pytest.raises(InputError, match="for another number of classes than the data's 5"):
        with_weights(replace(spec, num_classes=5), file)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights as torchvision and timm have them in their caches after a download."""
    torch.manual_seed(8)
    source = torchvision.models.resnet18().state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(source, file)
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *_, **__: dict(source))
    return source


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_published_weights_with_their_classes_and_with_others(published, name):
    classifier, _ = with_weights(ModelSpec(name, 1000, None, {}, *OTHER), "pretrained")
    assert taken_over(classifier, published)
    classifier, spec = with_weights(ModelSpec(name, 5, None, {}, *OTHER), "pretrained", new_head=True)
    assert taken_over(classifier, published, but=("fc.weight", "fc.bias"))
    assert spec.mean == (0.485, 0.456, 0.406)
    with pytest.raises(InputError, match=f"those of '{name}' know 1000 classes and the data have 5; fine-tune"):
        with_weights(ModelSpec(name, 5, None, {}, *OTHER), "pretrained")


def test_a_failed_download_is_said_in_one_line(monkeypatch):
    def offline(*_, **__):
        raise FileNotFoundError("An error happened.\nPlease check your connection")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", offline)
    with pytest.raises(InputError, match=r"'timm:resnet18' cannot be downloaded \(An error happened.\); check the"):
        create_model("timm:resnet18", num_classes=10, pretrained=True)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet20", "pretrained", "^'resnet20' has no published weights; choose a network of timm or torchvision$"),
        ("timm:vit_base_patch32_plus_256", "pretrained", "^'timm.* has no published weights; choose another network"),
        ("resnet20", "cifar10-resnet20-pp3", "were trained with .*'avg_kernel_size': 3.* in the network, and a plain"),
        ("resnet20", "cifar10-resnet20-blurredconv", "were trained with .*'blurred-conv'"),
        ("resnet32", SHIPPED, "belongs to another architecture: 'layer1.3"),
        ("resnet20", "pretrianed", "weights file 'pretrianed' does not exist"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name, weights, message):
    with pytest.raises(InputError, match=message):
        with_weights(ModelSpec(name, 10, None, {}, *OTHER), weights, new_head=True)


def test_another_number_of_classes_is_refused_unless_it_is_wanted():
    with pytest.raises(InputError, match="of 'resnet20', but for another number of classes than the data's 4"):
        with_weights(ModelSpec("resnet20", 4, None, None, *OTHER), SHIPPED)
