"""Comparing the folders that runs leave."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pushpull_conv import InputError, comparison
from pushpull_conv.benchmarking import _facts
from pushpull_conv.comparison_layers import VariedPushPullConv2d
from pushpull_conv.corruptions import recompress
from pushpull_conv.data import load_images
from pushpull_conv.files import RECIPE_FILE
from pushpull_conv.models import ModelSpec, load_pretrained, pretrained_folder, save_checkpoint
from pushpull_conv.report import scored

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Compare folders without writing the report; return what it would be made of."""
    made_of = []

    def kept(*results_and_baseline, **rest):
        made_of.append(rest)
        return scored(*results_and_baseline, **rest)

    monkeypatch.setattr(comparison, "scored", kept)
    monkeypatch.setattr(comparison, "write_report", lambda *folder_and_scores, **rest: made_of.append(rest))

    def call(*folders, baseline="baseline"):
        comparison.compare(folders, baseline, tmp_path / "report", console=Console(quiet=True))
        return made_of[-2] | made_of[-1]

    return call


def copied(source, target, label):
    """A folder of results as ``source``, under another label."""
    target.mkdir(parents=True)
    content = json.loads((source / "results.json").read_text())
    (target / "results.json").write_text(json.dumps(content | {"model": label}))
    for name in ("model.safetensors", "provenance.json"):
        shutil.copyfile(source / name, target / name)
    return target


@pytest.fixture
def other_run(tmp_path):
    """A run whose variant AugMix+PP3 is called ``other``, with a recipe of its own."""
    run = tmp_path / "other"
    copied(RESULTS / "cifar10-resnet20-augmented" / "AugMix+PP3", run / "other", "other")
    recipe = (RESULTS / "cifar10-resnet20-augmented" / RECIPE_FILE).read_text()
    recipe = re.sub(r"\bAugMix\+PP3\b", "other", recipe).replace("cifar10-resnet20-augmented", "elsewhere")
    (run / RECIPE_FILE).write_text(recipe)
    return run


def test_variants_of_two_runs_keep_their_recipes_and_notes(compared, other_run):
    run = RESULTS / "cifar10-resnet20"
    alone = compared(run)
    assert alone["title"] == "CIFAR-10, ResNet-20"
    assert alone["notes"] == []
    both = compared(run, other_run)
    assert both["title"] == "cifar10, 6 models"
    assert re.findall(r"^name: (.*)$", "".join(both["recipes"]), re.M) == ["cifar10-resnet20", "elsewhere"]
    assert [note.split(":")[0] for note in both["notes"]] == ["other"]


def test_a_recipes_title_stands_over_its_own_variants_only(compared, tmp_path):
    run = RESULTS / "cifar10-resnet20"
    mine = copied(run / "PP3", tmp_path / "mine", "mine")
    assert compared(run / "PP3", run / "baseline")["title"] == "CIFAR-10, ResNet-20"
    assert compared(run, mine)["title"] == "cifar10, 6 models"
    guest = tmp_path / "run"
    copied(run / "baseline", guest / "baseline", "baseline")
    copied(run / "PP3", guest / "guest", "guest")
    shutil.copyfile(run / RECIPE_FILE, guest / RECIPE_FILE)
    assert compared(guest / "baseline")["title"] == "CIFAR-10, ResNet-20"
    assert compared(guest)["title"] == "cifar10, 2 models"


def test_a_title_says_how_many_photographs_of_ones_own_there_are(compared, tmp_path):
    folders = [copied(RESULTS / "cifar10-resnet20" / name, tmp_path / name, name) for name in ("baseline", "PP3")]
    for folder in folders:
        content = json.loads((folder / "results.json").read_text())
        content["header"]["data"] = "folder-greyscale"
        (folder / "results.json").write_text(json.dumps(content))
    assert compared(*folders)["title"] == "2 models on 10,000 images of 10 classes"
    assert compared(folders[0])["title"] == "1 model on 10,000 images of 10 classes"


def test_models_that_do_not_lie_beside_their_results_have_their_recorded_number_of_parameters(compared, tmp_path):
    run = RESULTS / "cifar10-resnet20"
    expected = compared(run)["provenance"]["PP3"]["parameters"]
    folder = copied(run / "PP3", tmp_path / "mine", "mine")
    (folder / "model.safetensors").unlink()
    facts = _facts(load_pretrained("cifar10-resnet20-pp3"), load_images("digits", "test"))
    (folder / "provenance.json").write_text(json.dumps({"benchmark": facts}))
    assert compared(run, folder)["provenance"]["mine"]["parameters"] == expected


def test_a_run_shows_results_that_its_recipe_does_not_know_last(tmp_path):
    (tmp_path / RECIPE_FILE).write_text((RESULTS / "cifar10-resnet20" / RECIPE_FILE).read_text())
    copied(RESULTS / "cifar10-resnet20" / "PP3", tmp_path / "mine", "mine")
    assert [folder.name for folder in comparison.folders_with_results(tmp_path)] == ["mine"]
    for name in ("baseline", "PP3"):
        copied(RESULTS / "cifar10-resnet20" / name, tmp_path / name, name)
    assert [folder.name for folder in comparison.folders_with_results(tmp_path)] == ["baseline", "PP3", "mine"]


def test_a_fact_has_the_same_name_for_all_variants(compared):
    """Some were trained and benchmarked by one command, others by two."""
    records = compared(RESULTS / "cifar10-resnet20-seeds")["provenance"]
    names = {name for record in records.values() for name in record}
    assert "command" not in names
    assert all(
        {"training command", "benchmark command", "training seconds"} <= set(record) for record in records.values()
    )
    assert "commit" in names
    assert "training commit" not in names
    together = compared(RESULTS / "cifar10-resnet20")["provenance"]
    assert all("command" in record and "training command" not in record for record in together.values())


def test_other_layers_show_their_strength_of_inhibition(compared, tmp_path):
    bounded = {"kind": "varied-push-pull", "trainable_alpha": True, "alpha_limit": 0.5}
    layers = {"PP5-bounded": bounded, "Surround": {"kind": "surround", "alpha": 0.75}, "BlurPool": {"kind": "blurpool"}}
    run = RESULTS / "cifar10-resnet20"
    for label, layer in layers.items():
        folder = copied(run / "PP3", tmp_path / label, label)
        spec = ModelSpec("resnet20", 10, None, None, (0.5,) * 3, (0.25,) * 3, layer=layer)
        classifier = spec.build()
        save_checkpoint(folder / "model.safetensors", classifier, spec)
        if label == "PP5-bounded":
            (unit,) = (module for module in classifier.modules() if isinstance(module, VariedPushPullConv2d))
            expected = 0.5 / (1 + torch.exp(-unit.alpha.detach()))
    alphas = compared(run / "baseline", *(tmp_path / label for label in layers))["alphas"]
    assert set(alphas) == {"PP5-bounded", "Surround"}
    assert torch.allclose(alphas["PP5-bounded"], expected)
    assert alphas["Surround"].tolist() == [0.75] * 16


def test_without_the_frost_photographs_there_is_no_gallery(compared, monkeypatch):
    run = RESULTS / "cifar10-resnet20"
    assert compared(run)["sample"] is not None

    def not_installed(source):
        raise InputError(f"frost='{source}' needs an extra")

    monkeypatch.setattr(comparison, "load_frost", not_installed)
    assert compared(run)["sample"] is None


def test_any_folder_may_have_the_photo(compared):
    """A model that comes with the package has none."""
    shipped, run = pretrained_folder("cifar10-resnet20-baseline"), RESULTS / "cifar10-resnet20" / "PP3"
    for folders in ((shipped, run), (run, shipped)):
        assert compared(*folders, baseline="cifar10-resnet20-baseline")["sample"] is not None


def test_the_photo_is_stored_as_the_classified_images_were(compared, tmp_path):
    run = RESULTS / "cifar10-resnet20" / "baseline"
    plain = compared(run)["sample"]
    folder = copied(run, tmp_path / "baseline", "baseline")
    shutil.copy(run / "sample-0.png", folder)
    content = json.loads((folder / "results.json").read_text())
    content["header"]["jpeg_quality"] = 85
    (folder / "results.json").write_text(json.dumps(content))
    stored = compared(folder)["sample"].cell("gaussian_noise", 3)
    assert stored.equal(recompress(plain.cell("gaussian_noise", 3)[None], 85)[0])
    assert not stored.equal(plain.cell("gaussian_noise", 3))


def test_kept_epochs_are_drawn_where_the_log_tells_the_last_ones_number(compared, tmp_path):
    baseline = copied(RESULTS / "cifar10-resnet20" / "baseline", tmp_path / "run" / "baseline", "baseline")
    copied(baseline, baseline / "epochs" / "002", "baseline, epoch 2")
    assert compared(baseline)["epochs"] == {"baseline": {}}
    (baseline / "metrics.csv").write_text("epoch,loss\n1,2.0\n2,1.5\n3,1.2\n")
    assert list(compared(baseline)["epochs"]["baseline"]) == [2, 3]


def test_results_may_be_named_by_their_file(compared):
    run = RESULTS / "cifar10-resnet20"
    folders = [run / "baseline", run / "PP3"]
    by_file, by_folder = compared(*(folder / "results.json" for folder in folders)), compared(*folders)
    assert [by_file[name] for name in ("title", "provenance")] == [by_folder[name] for name in ("title", "provenance")]


def test_a_report_is_not_written_into_a_file(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(InputError, match="report' is a file; choose another folder"):
        comparison.compare([RESULTS / "cifar10-resnet20"], "baseline", tmp_path / "report", console=Console(quiet=True))


def test_two_results_of_one_label_are_refused(compared):
    with pytest.raises(InputError, match=r"two results are labelled 'PP3'; leave one out, or .* --label"):
        compared(RESULTS / "cifar10-resnet20", RESULTS / "cifar10-resnet20-augmented")


def test_a_folder_is_compared_once_and_with_its_recipe_however_it_is_named(compared, other_run, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(other_run / "other")
    (tmp_path / "run").symlink_to(other_run)
    expected = compared(other_run, baseline="other")
    assert expected["notes"]
    for place, names in {other_run / "other": ["."], tmp_path: ["link", "run", "other", "other/other"]}.items():
        monkeypatch.chdir(place)
        found = compared(*map(Path, names), baseline="other")
        assert (found["recipes"], found["notes"]) == (expected["recipes"], expected["notes"])


def test_trainings_that_differ_in_more_than_the_seed_are_not_averaged(compared, tmp_path, monkeypatch):
    runs = RESULTS / "cifar10-resnet20-finetuned", RESULTS / "cifar10-resnet20-seeds"
    message = (
        r"PP3@1235' would be averaged with '.*finetuned/PP3' and was trained otherwise \(model.weights is cifar10-"
    )
    with pytest.raises(InputError, match=message):
        compared(runs[0], runs[1] / "PP3@1235")
    (tmp_path / "link").symlink_to(runs[1] / "PP3@1235")
    with pytest.raises(InputError, match=message):
        compared(runs[0], tmp_path / "link")
    monkeypatch.chdir(runs[1] / "PP3@1235")
    with pytest.raises(InputError, match=message):
        compared(runs[0], Path())
    compared(runs[1])
    compared(runs[0])


def test_trainings_are_averaged_whatever_was_to_be_done_about_unreadable_images(compared, tmp_path):
    run = RESULTS / "cifar10-resnet20-seeds"
    recipe = (run / RECIPE_FILE).read_text()
    copied(run / "PP3@1235", tmp_path / "other" / "PP3@1235", "PP3@1235")
    (tmp_path / "other" / RECIPE_FILE).write_text(recipe.replace("unreadable: stop", "unreadable: skip"))
    assert (tmp_path / "other" / RECIPE_FILE).read_text() != recipe
    compared(run / "baseline", run / "PP3", tmp_path / "other")
