"""Hugging Face's folder: the same logits after the round trip, no code run, and a card that says what is known."""

import csv
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from pushpull_conv import InputError, Results, mean_error
from pushpull_conv.data import load_images
from pushpull_conv.interop.hub import HubClassifier
from pushpull_conv.models import load_checkpoint

RUN = Path(__file__).parents[2] / "results" / "cifar10-resnet20"
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
KINDS = [
    {"name": "resnet20"},
    {"name": "resnet20", "pushpull": {"avg_kernel_size": 5, "trainable_alpha": True}},
    {"name": "resnet18", "stem": "cifar", "layer": {"kind": "blurpool"}, "greyscale": True},
]


@pytest.mark.parametrize("settings", KINDS, ids=["plain", "push-pull", "layer"])
def test_a_round_trip_gives_the_same_logits(tmp_path, settings):
    torch.manual_seed(0)
    classes = tuple("abcdefghij")
    model = HubClassifier(num_classes=10, mean=MEAN, std=STD, classes=classes, **settings).eval()
    model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    torch.manual_seed(1)
    again = HubClassifier.from_pretrained(tmp_path)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(again(images), model(images))
    assert again.spec == model.spec
    assert not again.training
    assert HubClassifier.from_pretrained(tmp_path, map_location="meta").network.conv1.weight.is_meta
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()


def test_numbers_of_numpy_and_pytorch_come_through_the_configuration(tmp_path):
    mean = tuple(np.array(MEAN, np.float32))
    strength = {"alpha": torch.linspace(0, 2, 16), "avg_kernel_size": np.int64(5)}
    model = HubClassifier("resnet20", np.int64(10), mean, STD, None, strength).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_classes"], len(config["pushpull"]["alpha"])) == (10, 16)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(HubClassifier.from_pretrained(tmp_path)(images), model(images))


def test_the_folder_is_a_model_for_the_command_line(pushpull, tmp_path):
    classes = load_images("digits", "test").classes
    HubClassifier("resnet20", 10, MEAN, STD, classes=classes).save_pretrained(tmp_path / "model")
    call = ["--data-set", "digits", "--out", tmp_path / "out", "--corruption", "fog", "--severity", "3"]
    code, _, err = pushpull("evaluate", tmp_path / "model", *call)
    assert (code, err) == (0, "")


def test_a_trained_model_is_taken_over_with_its_card(tmp_path):
    model = HubClassifier.from_checkpoint(RUN / "PP3")
    model.save_pretrained(tmp_path, model_card_kwargs={"run": RUN / "PP3", "license": "cc-by-4.0"})
    original, spec = load_checkpoint(RUN / "PP3" / "model.safetensors")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(HubClassifier.from_pretrained(tmp_path)(images), original(images))
    assert json.loads((tmp_path / "config.json").read_text())["classes"] == list(spec.classes)

    results, card = Results.load(RUN / "PP3" / "results.json"), ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-4.0"
    values = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert values == {
        "cifar10": pytest.approx(results.clean_error, abs=1e-6),
        "cifar10-c": pytest.approx(mean_error(results), abs=1e-6),
    }
    for told in (
        "push-pull stem (avg_kernel_size 3, alpha 1.0, trainable_alpha False)",
        "10,000 test images of cifar10",
        "seed 1234",
        f"| clean | {100 * results.clean_error:.2f} % |",
        f"| fog | {100 * sum(results.errors['fog']) / 5:.2f} % |",
        f"**{100 * mean_error(results):.2f} %**",
        "commit: f21151ac6b88",
        "epochs: 12",
    ):
        assert told in card.text, told


def test_a_card_compares_with_a_baseline_on_the_same_images(tmp_path):
    model = HubClassifier.from_checkpoint(RUN / "PP5-trainable")
    text = model.generate_model_card(run=RUN / "PP5-trainable", baseline=RUN / "baseline").text
    rows = {row["model"]: row for row in csv.DictReader((RUN / "report" / "table.csv").open())}
    own, base = rows["PP5-trainable"], rows["baseline"]
    assert f"| clean | {100 * float(own['clean_error']):.2f} % | {100 * float(base['clean_error']):.2f} % |" in text
    for told in (f"mCE {100 * float(own['mce']):.2f} %", f"R_net +{float(own['r_net_percent']):.2f} %"):
        assert told in text
    assert "push-pull stem (avg_kernel_size 5, trainable_alpha True)" in text, "alpha 1 was not what was used"
    assert "The variant `PP5-trainable` of this recipe" in text
    assert (RUN / "recipe.yaml").read_text().strip() in text

    other = dataclasses.replace(Results.load(RUN / "baseline" / "results.json"), model="other seed")
    dataclasses.replace(other, header=dataclasses.replace(other.header, seed=1)).save(tmp_path / "results.json")
    with pytest.raises(InputError, match="cannot be compared"):
        model.generate_model_card(run=RUN / "PP5-trainable", baseline=tmp_path)


def test_a_card_claims_nothing_that_is_not_at_hand():
    card = HubClassifier("resnet20", 10, MEAN, STD).generate_model_card()
    assert card.data.eval_results is None
    assert "None is stated for the weights" in card.text
    assert "Errors" not in card.text


def test_a_card_shows_names_as_they_are(tmp_path):
    """A sign that Markdown would take for its own, in a table, too."""
    odd = dataclasses.replace(Results.load(RUN / "baseline" / "results.json"), model="a|b <i>*c*")
    odd.save(tmp_path / "results.json")
    model = HubClassifier("resnet20", 10, MEAN, STD)
    text = model.generate_model_card(run=RUN / "PP3", baseline=tmp_path).text
    assert r"| images | top-1 error | a\|b \<i>\*c\* |" in text
    assert r"# a\|b \<i>\*c\*" in model.generate_model_card(run=tmp_path).text


def test_a_partial_benchmark_has_no_mean_error(pushpull, tmp_path):
    model = HubClassifier("resnet20", 10, MEAN, STD, classes=load_images("digits", "test").classes)
    model.save_pretrained(tmp_path / "model")
    call = ["--data-set", "digits", "--out", tmp_path / "out", "--corruption", "fog", "--severity", "3"]
    pushpull("evaluate", tmp_path / "model", *call)
    card = model.generate_model_card(run=tmp_path / "out")
    assert [result.dataset_type for result in card.data.eval_results] == ["digits"]
    assert "mean error" not in card.text
    assert "over the severities 3" in card.text
    pushpull("evaluate", tmp_path / "model", *call[:4], "--corruption", "frost", "--severity", "5")
    assert "over the severities that were run of each" in model.generate_model_card(run=tmp_path / "out").text


def test_a_card_tells_the_seed_of_its_own_training():
    run = RUN.parent / "cifar10-resnet20-seeds" / "PP3@1236"
    text = HubClassifier.from_checkpoint(run).generate_model_card(run=run).text
    assert "The variant `PP3@1236` of this recipe, training seed 1236." in text


def test_weights_are_all_that_is_read(tmp_path):
    HubClassifier("resnet20", 10, MEAN, STD).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(InputError, match=r"model.safetensors' does not exist"):
        HubClassifier.from_pretrained(tmp_path)


def test_what_cannot_be_loaded_is_said(tmp_path):
    HubClassifier("resnet20", 10, MEAN, STD).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="belongs to another architecture"):
        HubClassifier.from_pretrained(tmp_path, num_classes=5)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("conv1.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"'conv1.weight' is missing"):
        HubClassifier.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"config.json of .* does not fit a pushpull-conv model .*'stride'"):
        HubClassifier.from_pretrained(tmp_path, stride=2)
    for gone in ("./typo", tmp_path / "typo"):
        with pytest.raises(InputError, match=r"typo' is no folder, and no name of a repository; check the path"):
            HubClassifier.from_pretrained(gone)
    (tmp_path / "config.json").write_bytes((tmp_path / "config.json").read_bytes()[:-2])
    with pytest.raises(InputError, match=r"config.json of .* is truncated or not JSON"):
        HubClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config.json of a pushpull-conv model"):
        HubClassifier.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="other classes"):
        HubClassifier("resnet20", 2, MEAN, STD, classes=("a", "b")).generate_model_card(run=RUN / "PP3")


def test_a_repository_is_asked_for_these_two_files(tmp_path, monkeypatch):
    model = HubClassifier("resnet20", 10, MEAN, STD).eval()
    model.save_pretrained(tmp_path)
    asked = []

    def download(repo_id, filename, revision, **_):
        asked.append((repo_id, filename, revision))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr("pushpull_conv.interop.hub.hf_hub_download", download)
    again = HubClassifier.from_pretrained("someone/resnet20-pp3", revision="v1")
    assert asked == [("someone/resnet20-pp3", name, "v1") for name in ("config.json", "model.safetensors")]
    assert torch.equal(again.network.conv1.weight, model.network.conv1.weight)
