"""The command line: what each command leaves, and the one line that says what was wrong."""

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from pushpull_conv import Results, create_model, drawing
from pushpull_conv.augment import AUGMENTATIONS
from pushpull_conv.models import ModelSpec, load_checkpoint, save_checkpoint
from pushpull_conv.training.recipe import shipped_recipes
from steps import refused

CELLS = ["--corruption", "fog", "--severity", "3"]
ENDLESS = ["--set", "training.epochs=10000", "--set", "model.name=timm:test_resnet"]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A checkpoint of an untrained network for the digits."""
    torch.manual_seed(0)
    spec = ModelSpec("resnet20", 10, None, {"avg_kernel_size": 3}, (0.5,) * 3, (0.25,) * 3, tuple("0123456789"))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, spec.build(), spec)
    return path


@pytest.fixture
def greyscale_file(model_file, tmp_path):
    """The same network, of which its file says that it learned from greyscale images."""
    classifier, spec = load_checkpoint(model_file)
    save_checkpoint(tmp_path / "greyscale.safetensors", classifier, dataclasses.replace(spec, greyscale=True))
    return tmp_path / "greyscale.safetensors"


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def left_behind(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


COMMANDS = ["run", "train", "benchmark", "submit", "status", "evaluate", "compare", "export", "corrupt", "augment"]
COMMANDS += ["explain", "models", "data check"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_an_example_and_what_each_option_takes(pushpull, command):
    code, out, _ = pushpull(*command.split(), "--help")
    assert code == 0
    assert not re.search(r"--[\w-]+ +<(?!bool)", out), "the name of a type where the kind of value should stand"
    assert not re.search(r"--[\w-]+ +\d-\d", out), "a range where one value is taken"
    assert not re.search(r"\[\[|\.{4,}", out), "brackets or dots twice"
    if command:
        assert re.search(rf"Example: pushpull {command}\s+\S", out), out
    else:
        assert all(word in out for command in COMMANDS for word in command.split()[:1])


def test_the_help_of_benchmark_says_that_it_trains(pushpull):
    assert "a variant that is not trained is trained first" in " ".join(pushpull("benchmark", "--help")[1].split())


def test_evaluate_counts_prints_and_keeps(pushpull, model_file, tmp_path):
    call = ["evaluate", model_file, "--data-set", "digits", "--out", tmp_path / "mine", *CELLS]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    results = Results.load(tmp_path / "mine" / "results.json")
    assert list(results.cells) == [("fog", 3)]
    assert results.model == "mine"
    assert f"{100 * results.cells['fog', 3].error:.2f}" in out
    assert f"{100 * results.clean_error:.2f}" in out
    before = (tmp_path / "mine" / "results.json").read_bytes()
    assert pushpull(*call)[0] == 0
    assert (tmp_path / "mine" / "results.json").read_bytes() == before
    record = json.loads((tmp_path / "mine" / "provenance.json").read_text())["benchmark"]
    assert record["command"].startswith("pushpull evaluate")
    assert pushpull(*call, "--out", tmp_path / "rounded", "--autocast", "bfloat16")[0] == 0
    assert Results.load(tmp_path / "rounded" / "results.json").header.autocast == "bfloat16"


@pytest.mark.parametrize(
    ("words", "label"),
    [(["--label", "[/foo]"], "[/foo]"), ([], "resnet50 [a1_in1k]"), (["--label", ":fire:"], ":fire:")],
)
def test_brackets_in_a_name_are_no_markup(pushpull, model_file, tmp_path, words, label):
    call = ["evaluate", model_file, "--data-set", "digits", "--out", tmp_path / "resnet50 [a1_in1k]", *words, *CELLS]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    assert f"{label}  2 cells benchmarked" in out
    assert f"{label} on digits" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (["corrupt", "--data-set", "digits", "--workers", "2"], "labels.npy"),  # as the next part is given out
        pytest.param(["run", "quickstart", *ENDLESS], "baseline/last.ckpt", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_is_answered_in_one_line(tmp_path, words, begun):
    """The terminal sends it to all processes, here to a session of their own."""
    call = [sys.executable, "-m", "pushpull_conv.cli", *words, "--out", str(tmp_path / "out")]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # jobs in the background ignore it
    process = subprocess.Popen(call, **options)
    try:
        deadline = time.monotonic() + 300  # of a busy machine
        while not (tmp_path / "out" / begun).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (130, "stopped; the same command goes on with what is missing\n")


# Triton's library makes an `ImportError` of what is raised in its import, and PyTorch takes that for its absence.
INTERRUPTED_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pushpull_conv.cli import main
class Interrupted:
    def find_spec(self, name, *_):
        if name == "triton._C.libtriton":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt as stop:
                raise ImportError("initialization failed") from stop
sys.meta_path.insert(0, Interrupted())
main()
"""


@pytest.mark.parametrize("words", [["train"], ["run", "--dry-run"]])
def test_ctrl_c_is_answered_when_it_comes_while_libraries_are_imported(tmp_path, words):
    small = ["--set", "training.epochs=1", "--set", "model.name=timm:test_resnet", "--set", "data.fraction=0.2"]
    call = [sys.executable, "-c", INTERRUPTED_IMPORT, *words, "quickstart", *small, "--out", tmp_path / "out"]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    stopped = "stopped; the same command goes on with what is missing\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", stopped)
    assert not (tmp_path / "out").exists()


def test_the_home_folder_is_meant_where_the_shell_leaves_the_tilde(pushpull, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    code, _, err = pushpull("augment", photo, "--out=~/figures/a.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "home" / "figures" / "a.png").exists()
    assert not (tmp_path / "~").exists()


def test_errors_stand_under_their_own_severity(pushpull, model_file, tmp_path):
    call = ["evaluate", model_file, "--data-set", "digits", "--out", tmp_path / "mine"]
    assert pushpull(*call, "--corruption", "fog", "--severity", "1")[0] == 0
    _, out, _ = pushpull(*call, "--corruption", "frost", "--severity", "3")
    results = Results.load(tmp_path / "mine" / "results.json")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    fog, frost = (f"{100 * results.cells[key].error:.2f}" for key in (("fog", 1), ("frost", 3)))
    assert rows["fog"] == [fog, "–", fog]
    assert rows["frost"] == ["–", frost, frost]
    refused(pushpull(*call[:-1], tmp_path / "other", "--label", "two\nlines"), "label is 'two\\nlines'")
    assert not (tmp_path / "other" / "cells").exists()


def test_a_timm_model_is_evaluated_like_a_run(pushpull, tmp_path):
    network = create_model("timm:resnet18", num_classes=10)
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    call = ["--weights", tmp_path / "mine.pt", "--data-set", "digits", "--out", tmp_path / "out", *CELLS]
    code, _, err = pushpull("evaluate", "timm:resnet18", *call, "--severity", "1")
    assert (code, err) == (0, "")
    assert len(Results.load(tmp_path / "out" / "results.json").cells) == 2


@pytest.mark.parametrize("profile", ["cifar", "tiny-imagenet", "imagenet"])
@pytest.mark.slow
def test_corrupt_draws_the_grid(pushpull, photo, tmp_path, profile):
    code, out, err = pushpull("corrupt", photo, "--out", tmp_path / "grid.png", "--profile", profile)
    assert (code, err) == (0, "")
    assert "grid.png" in out
    with Image.open(tmp_path / "grid.png") as grid:
        assert min(grid.size) > 500


def test_a_path_with_colons_is_printed_as_it_is(pushpull):
    refused(pushpull("compare", ":fire:", "--baseline", "x", "--out", "y"), "':fire:'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "quikstart"], ["unknown recipe 'quikstart'", "did you mean 'quickstart'"]),
        (["run", "nowhere.yaml"], ["nowhere.yaml"]),
        (["run", "quickstart", "--set", "training.epoch=2"], ["'epoch'", "did you mean 'epochs'"]),
        (
            ["run", "quickstart", "--set", "model.name=resnet200"],
            ["unknown model 'resnet200'", "did you mean 'resnet20'"],
        ),
        (["run", "quickstart", "--set", "model.name=timm:resnet5o"], ["'resnet5o'", "did you mean 'resnet50'"]),
        (["run", "quickstart", "--set", "training.augmentations=[corp]"], ["augmentation 'corp'", "'crop'"]),
        (["run", "quickstart", "--set", "variants=[baseline, PP33]"], ["variant 'PP33'", "did you mean 'PP3'"]),
        (["run", "quickstart", "--set", "variants=[{name: a, pushpull: {avg_kernel_size: 4}}]"], ["4", "odd"]),
        (["run", "quickstart", "--set", "variants=[{name: a, pushpull: {avg_kernel_size: -1}}]"], ["-1"]),
        (["run", "quickstart", "--set", "benchmark.frost=no-such-folder"], ["frost", "no-such-folder"]),
        (["run", "quickstart", "--set", "model.weights=nowhere.pt"], ["nowhere.pt", "does not exist"]),
        (["run", "quickstart", "--set", "model.weights=pretrained"], ["'resnet20' has no published weights"]),
        (
            ["run", "quickstart", "--set", "benchmark.autocast=bf16"],
            ["autocast dtype 'bf16'", "did you mean 'bfloat16'"],
        ),
        (["run", "quickstart", "--set", "training.batch_size=5000"], ["1442 images", "batch_size"]),
        (["run", "quickstart", "--data", "digits"], ["scikit-learn", "digits"]),
        (["benchmark", "quickstart", "--variant", "PP3", "--corruption", "fogg"], ["corruption 'fogg'", "'fog'"]),
        (["benchmark", "quickstart", "--variant", "PP3", "--corruption", "fog"], ["model.safetensors", "exist"]),
        (
            ["benchmark", "quickstart", "--corruption", "clean,fog"],
            ["--corruption takes one name", "'clean,fog'", "repeat the option: --corruption clean --corruption fog"],
        ),
        (
            ["train", "quickstart", "--variant", "baseline, PP3"],
            ["repeat the option: --variant baseline --variant PP3"],
        ),
        (["train", "quickstart", "--variant", "PP5"], ["unknown variant 'PP5'", "did you mean 'PP3'", "baseline"]),
        (["run", "cifar10-resnet20", "--data", "no-such-folder"], ["no-such-folder", "is missing"]),
    ],
)
def test_a_bad_recipe_or_setting_is_refused_before_anything_starts(pushpull, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    refused(pushpull(*words), *said)
    assert not [name for name in left_behind(tmp_path) if name.endswith((".ckpt", ".json", ".safetensors", ".csv"))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--corruption", "fogg"], ["unknown corruption 'fogg'", "did you mean 'fog'"]),
        (["--corruption", "fog,snow"], ["repeat the option: --corruption fog --corruption snow"]),
        (["--severity", "0"], ["severity is 0", "1, 2, 3, 4 and 5"]),
        (["--severity", "6"], ["severity is 6", "1, 2, 3, 4 and 5"]),
        (["--suite", "cifar-c"], ["unknown suite 'cifar-c'", "did you mean 'cifar10-c'"]),
        (["--batch-size", "0"], ["batch_size", "not 0"]),
        (["--autocast", "half"], ["unknown autocast dtype 'half'", "float16"]),
        (["--frost", "nowhere"], ["frost", "nowhere"]),
        (["--weights", "x.pt"], ["x.pt"]),
        (["--data-set", "digit"], ["data set 'digit'", "did you mean 'digits'"]),
        (["--data-set", "cifar10", "--data", "nowhere"], ["nowhere", "is missing"]),
    ],
)
def test_a_bad_argument_of_evaluate_is_refused(pushpull, model_file, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    refused(pushpull("evaluate", model_file, "--data-set", "digits", "--out", "out", *words), *said)
    assert "out/results.json" not in left_behind(tmp_path)
    assert not [name for name in left_behind(tmp_path) if "provenance" in name]


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_malicious_checkpoint_is_refused_and_runs_nothing(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bomb.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    torch.save({"state_dict": Bomb()}, "zipped.pt")
    for name in ("bomb.pt", "zipped.pt"):
        call = ["evaluate", "resnet20", "--weights", name, "--data-set", "digits", "--out", "out"]
        refused(pushpull(*call), name, "refused")
    assert left_behind(tmp_path) == ["bomb.pt", "zipped.pt"]


def test_published_weights_for_other_classes_are_not_evaluated(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: None)
    call = ["evaluate", "timm:resnet18", "--weights", "pretrained", "--data-set", "digits", "--out", "out"]
    refused(pushpull(*call), "'pretrained' was trained on 1000 classes (n01440764", "others (0, 1, 2", "recipe")
    assert left_behind(tmp_path) == []


def test_weights_of_a_model_for_other_classes_are_not_evaluated(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["--data-set", "digits", "--out", "out"]
    told = ["'cifar10-resnet20-baseline' was trained on 10 classes (airplane, ", "digits has others"]
    told += ["fine-tune it, with a recipe whose model has these weights"]
    refused(pushpull("evaluate", "cifar10-resnet20-baseline", *call), *told)
    refused(pushpull("evaluate", "resnet20", "--weights", "cifar10-resnet20-baseline", *call), *told)
    assert left_behind(tmp_path) == []


def test_weights_of_the_same_network_for_more_classes_are_told_as_such(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("resnet20", num_classes=12).state_dict(), "mine.pt")
    call = ["--weights", "mine.pt", "--data-set", "digits", "--out", "out"]
    told = "weights 'mine.pt' are of 'resnet20', but for another number of classes than the data's 10; give the images"
    refused(pushpull("evaluate", "resnet20", *call), told)
    refused(pushpull("evaluate", "resnet32", *call), "belongs to another architecture", "is missing")
    assert left_behind(tmp_path) == ["mine.pt"]


def test_what_was_nearly_right_is_told_how_to_be_right(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.pt").write_text("")
    write = ["--data-set", "digits", "--out", "out"]
    for weights in ([], ["--weights", "mine.pt"]):
        said = "'mine.py' is code; a network of your own is benchmarked from Python: see docs/benchmark.md"
        refused(pushpull("evaluate", "mine.py", *weights, *write), said)
    refused(pushpull("evaluate", "mine.pt", *write), "name that, as in timm:resnet50 --weights mine.pt")
    refused(pushpull("evaluate", "resnet20", "--weights", ".", *write), "folder '.' has no model.safetensors; give one")
    Path("data/val/ant").mkdir(parents=True)
    inside = ["evaluate", "resnet20", "--data-set", "folder", "--data", "data/val", "--out", "out"]
    refused(pushpull(*inside), "data/val' has no test images", "give the folder that holds it, 'data'")
    inside = ["evaluate", "resnet20", "--data-set", "folder", "--data", "data", "--out", "data/val/out"]
    refused(pushpull(*inside), "'data/val/out' lies among the images of 'data'; choose a folder outside of it")
    inside = ["train", "quickstart", "--data", "data", "--out", "data/val/out"]
    refused(pushpull(*inside), "'data/val/out' lies among the images of 'data'; choose a folder outside of it")
    for words in (["--seed", 1], ["--frost", "procedural"], ["--no-jpeg"]):
        told = f"{words[0]} does not go with --published, whose images are made already; leave it"
        refused(pushpull("evaluate", "resnet20", *write, "--published", "set", *words), told)
    for seed in (99999999999999999999, -1):
        told = f"--seed is {seed}; allowed: 0 to 18446744073709551615"
        refused(pushpull("evaluate", "resnet20", *write, "--seed", seed), told)
        refused(pushpull("augment", "photo.png", "--out", "a.png", "--seed", seed), told)


def test_a_network_without_weights_is_not_evaluated(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["evaluate", "timm:resnet18", "--data-set", "digits", "--out", "out"]
    refused(
        pushpull(*call), "'timm:resnet18' is a network without weights; add --weights FILE, or --weights pretrained"
    )
    assert left_behind(tmp_path) == []


def test_what_is_not_installed_is_named(pushpull, tmp_path, monkeypatch):
    def lacking(name):
        def compare(*_, **__):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("pushpull_conv.comparison.compare", compare)
        return pushpull("compare", tmp_path, "--baseline", "x", "--out", tmp_path)

    refused(lacking("yaml"), "yaml is not installed; run: pip install 'pushpull-conv[train,report]'")
    with pytest.raises(ModuleNotFoundError):  # a fault of this package is shown as it is
        lacking("pushpull_conv.gone")


def test_a_model_of_greyscale_images_is_evaluated_on_such(pushpull, greyscale_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run" / "PP3"
    run.mkdir(parents=True)
    shutil.copy(greyscale_file, run / "model.safetensors")
    call = ["evaluate", run, "--data-set", "digits", "--out", "out", "--corruption", "fog", "--severity", "1"]
    refused(pushpull(*call), "was trained in greyscale, digits is in colour; add --greyscale")
    assert pushpull(*call, "--greyscale")[0] == 0
    assert Results.load("out/results.json").header.data == "digits-greyscale"


@pytest.mark.parametrize("model", [".", "model.safetensors", "epochs/005", "link", "link.safetensors", "../../run/PP3"])
def test_a_model_of_greyscale_images_is_known_however_it_is_named(
    pushpull, greyscale_file, tmp_path, monkeypatch, model
):
    """Also where a variant lies on another disk, with a link to it in the run."""
    run = tmp_path / "run" / "PP3"
    moved = tmp_path / "disk" / "PP3"
    (run / "epochs" / "005").mkdir(parents=True)
    for folder in (run, run / "epochs" / "005"):
        shutil.copy(greyscale_file, folder / "model.safetensors")
    (tmp_path / "elsewhere").mkdir()
    links = {"link": run, "link.safetensors": run / "model.safetensors"}
    place = tmp_path / "elsewhere" if model in links else run
    if model in links:
        (place / model).symlink_to(links[model])
    if model.startswith(".."):
        moved.parent.mkdir()
        run.rename(moved)
        run.symlink_to(moved)
        place = tmp_path / "elsewhere" / "here"
        place.mkdir()
    monkeypatch.chdir(place)
    call = ["evaluate", model, "--data-set", "digits", "--out", tmp_path / "out"]
    refused(pushpull(*call), "was trained in greyscale, digits is in colour; add --greyscale")


def test_a_network_with_the_weights_of_a_model_of_greyscale_images_is_evaluated_on_such(pushpull, tmp_path):
    digits = tuple("0123456789")
    spec = ModelSpec("resnet20", 10, None, None, (0.5,) * 3, (0.5,) * 3, digits, greyscale=True)
    file = tmp_path / "grey.safetensors"
    save_checkpoint(file, spec.build(), spec)
    call = ["evaluate", "resnet20", "--weights", file, "--data-set", "digits", "--out", tmp_path / "out"]
    call += ["--corruption", "fog", "--severity", "1"]
    refused(pushpull(*call), f"'{file}' was trained in greyscale, digits is in colour; add --greyscale")
    assert pushpull(*call, "--greyscale")[0] == 0


def test_a_checkpoint_of_another_architecture_is_refused(pushpull, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("resnet32", num_classes=10).state_dict(), "deeper.pt")
    call = ["--weights", "deeper.pt", "--data-set", "digits", "--out", "out"]
    refused(pushpull("evaluate", "resnet20", *call), "deeper.pt", "another architecture")
    refused(pushpull("evaluate", "gone.safetensors", "--data-set", "digits", "--out", "out"), "gone.safetensors")
    model_file_cut = tmp_path / "cut.safetensors"
    model_file_cut.write_bytes(model_file.read_bytes()[:1000])
    refused(pushpull("evaluate", model_file_cut, "--data-set", "digits", "--out", "out"), "cut.safetensors", "damaged")
    assert left_behind(tmp_path) == ["cut.safetensors", "deeper.pt"]


def test_an_output_folder_that_cannot_be_written_is_refused(pushpull, model_file, tmp_path, photo):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "out"
    refused(pushpull("run", "quickstart", "--out", below), "cannot be written", "file")
    refused(pushpull("evaluate", model_file, "--data-set", "digits", "--out", below), "cannot be written")
    refused(pushpull("corrupt", photo, "--out", below / "grid.png"), "cannot be written")


def test_a_run_does_not_go_on_in_the_folder_of_another(pushpull, tmp_path):
    recipe = yaml.safe_load(shipped_recipes()["quickstart"].read_text())
    recipe["training"]["epochs"] = 99
    (tmp_path / "out" / "PP3").mkdir(parents=True)
    (tmp_path / "out" / "PP3" / "last.ckpt").write_text("")
    (tmp_path / "out" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    refused(pushpull("run", "quickstart", "--out", tmp_path / "out"), "training.epochs is 99 there, 12 here", "--out")


@pytest.fixture
def cifar_folder(tmp_path):
    """A tiny CIFAR-10 as Parquet files."""

    def write(classes=10, cut=False, cut_image=False):
        folder = tmp_path / "cifar"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "image.png")
        content = (tmp_path / "image.png").read_bytes()
        for split in ("train", "test"):
            images = [{"bytes": content, "path": None}] * 12
            if cut_image:
                images[7] = {"bytes": content[:40], "path": None}
            names = [f"class{place}" for place in range(classes)]
            features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = pa.table({"img": images, "label": [place % classes for place in range(12)]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
            path = folder / f"{split}-00000-of-00001.parquet"
            pq.write_table(table, path)
            if cut:
                path.write_bytes(path.read_bytes()[:-100])
        return folder

    return write


def test_data_that_cannot_be_used_is_named(pushpull, cifar_folder, tmp_path, model_file):
    call = ["evaluate", model_file, "--data-set", "cifar10", "--out", tmp_path / "out", "--data"]
    refused(pushpull(*call, cifar_folder(classes=3)), "3", "10")
    refused(pushpull(*call, cifar_folder(cut=True)), "test-00000-of-00001.parquet", "truncated")
    (tmp_path / "empty").mkdir()
    refused(pushpull(*call, tmp_path / "empty"), "empty", "parquet")
    assert not (tmp_path / "out").exists()


def results_with(pushpull, model_file, out, *changes):
    call = ["evaluate", model_file, "--data-set", "digits", "--out", out]
    assert pushpull(*call, *changes, "--batch-size", "355")[0] == 0


def test_data_of_someone_else_are_named_in_one_line(pushpull, tmp_path, monkeypatch):
    def scandir(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))

    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "train").mkdir()
    code, _, err = pushpull("data", "check", tmp_path, "--data-set", "folder")
    line = f"error: '{tmp_path / 'train'}' may not be used (Permission denied); ask its owner for access\n"
    assert (code, err) == (2, line)


def test_results_made_otherwise_are_not_compared(pushpull, model_file, tmp_path, photo):
    results_with(pushpull, model_file, tmp_path / "a", *CELLS)
    results_with(pushpull, model_file, tmp_path / "b", *CELLS, "--seed", "2")
    frost = tmp_path / "frost"
    frost.mkdir()
    Image.open(photo).resize((300, 300)).save(frost / "frost.png")
    results_with(pushpull, model_file, tmp_path / "c", *CELLS, "--frost", frost)
    other = json.loads((tmp_path / "a" / "results.json").read_text())
    other["header"]["fingerprint"] = "0" * 64
    other["model"] = "d"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "results.json").write_text(json.dumps(other))
    for name, word in (("b", "seed"), ("c", "frost"), ("d", "fingerprint")):
        call = ["compare", tmp_path / "a", tmp_path / name, "--baseline", "a", "--out", tmp_path / "report"]
        refused(pushpull(*call), "cannot be compared", word)
    assert not (tmp_path / "report").exists()


def test_compare_needs_results_and_a_baseline(pushpull, model_file, tmp_path):
    (tmp_path / "none").mkdir()
    call = ["compare", tmp_path / "none", "--baseline", "a", "--out", tmp_path / "report"]
    refused(pushpull(*call), "holds no results.json")
    results_with(pushpull, model_file, tmp_path / "a", *CELLS)
    call = ["compare", tmp_path / "a", "--baseline", "b", "--out", tmp_path / "report"]
    refused(pushpull(*call), "unknown baseline 'b'", "a")
    refused(pushpull(*call, "--baseline", "a"), "results of 'a' lack 74 of the 75 cells", "without --corruption")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("gone.png", ["gone.png", "does not exist"]), ("text.png", ["text.png", "no picture"])],
)
def test_a_picture_that_cannot_be_read_is_named(pushpull, tmp_path, name, words):
    (tmp_path / "text.png").write_text("not a picture")
    refused(pushpull("corrupt", tmp_path / name, "--out", tmp_path / "grid.png"), *words)
    assert left_behind(tmp_path) == ["text.png"]


def test_an_unknown_profile_or_ending_is_refused(pushpull, photo, tmp_path):
    refused(pushpull("corrupt", photo, "--out", tmp_path / "a.png", "--profile", "cifer"), "did you mean 'cifar'")
    refused(pushpull("corrupt", photo, "--out", tmp_path / "a.gif", "--profile", "cifar"), "a.gif", ".png")


def test_a_set_is_written_and_evaluated_from_the_disk(pushpull, model_file, tmp_path):
    call = ["corrupt", "--data-set", "digits", "--corruption", "fog", "--workers", "1", "--out", tmp_path / "set"]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    assert "digits  2 parts written" in out
    assert str(tmp_path / "set" / "manifest.json") in out
    assert left_behind(tmp_path / "set") == ["fog.npy", "labels.npy", "manifest.json"]
    assert pushpull(*call)[0] == 0
    call = ["evaluate", model_file, "--data-set", "digits", *CELLS, "--batch-size", "355"]
    assert pushpull(*call, "--out", tmp_path / "generated")[0] == 0
    assert pushpull(*call, "--out", tmp_path / "published", "--published", tmp_path / "set")[0] == 0
    generated, published = (Results.load(tmp_path / name / "results.json") for name in ("generated", "published"))
    assert (generated.clean, generated.cells) == (published.clean, published.cells)
    call = ["compare", tmp_path / "generated", tmp_path / "published", "--baseline", "generated"]
    refused(pushpull(*call, "--out", tmp_path / "report"), "cannot be compared", "origin 'generated' and 'published")


def test_a_set_for_a_model_of_greyscale_images_is_written_from_such(pushpull, model_file, tmp_path):
    write = ["corrupt", "--data-set", "digits", "--corruption", "fog", "--workers", "1", "--greyscale"]
    assert pushpull(*write, "--out", tmp_path / "set")[0] == 0
    call = ["evaluate", model_file, "--data-set", "digits", *CELLS, "--published", tmp_path / "set"]
    refused(pushpull(*call, "--out", tmp_path / "a"), "the corrupted images are in greyscale", "in colour")
    assert pushpull(*call, "--out", tmp_path / "b", "--greyscale")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["either a picture or --data-set"]),
        (["photo.png", "--data-set", "digits"], ["either a picture or --data-set"]),
        (["photo.png", "--workers", "2"], ["--workers does not go with a picture"]),
        (["photo.png", "--greyscale"], ["--greyscale does not go with a picture"]),
        (["photo.png", "--suite", "cifar10-c"], ["--suite does not go with a picture"]),
        (["--data-set", "digits", "--profile", "cifar"], ["--profile does not go with --data-set"]),
        (["--data-set", "digits", "--suite", "imagenet-c"], ["'imagenet-c' is for images of 224 x 224", "cifar10-c"]),
        (["--data-set", "digits", "--corruption", "fogg"], ["did you mean 'fog'"]),
        (["--data-set", "imagenet"], ["imagenet is not downloaded", "--data"]),
        (["--data-set", "folder", "--data", "."], ["has no test images of folder", "val/<class>/*"]),
    ],
)
def test_a_bad_argument_of_corrupt_is_refused(pushpull, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    refused(pushpull("corrupt", *words, "--out", "out"), *said)
    assert left_behind(tmp_path) == []


def test_what_does_not_go_with_evaluate_is_refused(pushpull, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["evaluate", model_file, "--data-set", "digits", "--out", "out"]
    refused(pushpull(*call, "--suite", "tiny-imagenet-c"), "64 x 64", "digits have 32 x 32", "cifar10-c")
    refused(pushpull(*call, "--no-jpeg"), "'cifar10-c' has no JPEG step")
    refused(pushpull(*call, "--published", "nowhere"), "published set 'nowhere' is missing")
    (tmp_path / "set").mkdir()
    refused(pushpull(*call, "--published", "set"), "labels.npy' is missing")
    refused(pushpull("run", "quickstart", "--set", "benchmark.jpeg=false"), "no JPEG step to leave out")
    refused(pushpull("run", "quickstart", "--set", "benchmark.suite=imagenet-c"), "224 x 224", "cifar10-c")
    assert not [name for name in left_behind(tmp_path) if name.endswith((".json", ".ckpt", ".safetensors"))]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_augment_draws_every_augmentation(pushpull, photo, tmp_path, ending):
    out = tmp_path / "out" / f"augmented.{ending}"
    call = ["augment", photo, "--out", out, "--profile", "cifar"]
    code, said, err = pushpull(*call)
    assert (code, err) == (0, "")
    assert f"augmented.{ending}" in said
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if ending == "svg":
        text = out.read_text()
        assert all(augment.title in text for augment in AUGMENTATIONS.values())
        assert pushpull(*call)[0] == 0
        assert out.read_text() == text
        assert pushpull(*call, "--seed", "2")[0] == 0
        assert out.read_text() != text


@pytest.mark.parametrize("command", ["corrupt", "augment", "explain"])
def test_where_a_figure_cannot_be_written_none_is_drawn(pushpull, model_file, photo, tmp_path, monkeypatch, command):
    def draw(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("pushpull_conv.drawing.load_frost", draw)
    monkeypatch.setattr("pushpull_conv.drawing.draws", draw)
    monkeypatch.setattr("pushpull_conv.drawing.write_explanation", draw)
    call = ["explain", model_file, photo, "--out"] if command == "explain" else [command, photo, "--out"]
    (tmp_path / "folder.png").mkdir()
    refused(pushpull(*call, tmp_path / "a.gif"), "a.gif", ".png")
    refused(pushpull(*call, tmp_path / "folder.png"), "folder.png' is a folder; name a file")
    refused(pushpull(*call, photo / "a.png"), "cannot be written")


def test_endings_may_have_capitals(pushpull, model_file, photo, tmp_path):
    assert pushpull("explain", model_file, photo, "--out", tmp_path / "A.SVG")[0] == 0
    assert (tmp_path / "A.SVG").read_text().startswith("<?xml")
    assert pushpull("export", "cifar10-resnet20-pp3", "--out", tmp_path / "T.CSV")[0] == 0
    assert (tmp_path / "T.CSV").read_text().startswith('"model"')


def test_augment_refuses_what_it_cannot_draw(pushpull, photo, tmp_path):
    refused(pushpull("augment", tmp_path / "gone.png", "--out", tmp_path / "a.png"), "gone.png", "does not exist")
    refused(pushpull("augment", photo, "--out", tmp_path / "a.gif"), "a.gif", ".png")
    refused(pushpull("augment", photo, "--out", tmp_path / "a.png", "--profile", "cifer"), "did you mean 'cifar'")
    assert left_behind(tmp_path) == ["photo.png"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_explain_draws_a_unit(pushpull, model_file, photo, tmp_path, ending):
    out = tmp_path / "out" / f"explained.{ending}"
    code, said, err = pushpull("explain", model_file.parent, photo, "--out", out, "--filters", "2")
    assert (code, err) == (0, "")
    assert f"explained.{ending}" in said
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if ending == "svg":
        text = out.read_text()
        assert all(word in text for word in ("push spectrum", "difference", "cycles/pixel", "Below: the 2 filters"))


@pytest.mark.parametrize(
    ("size", "seen"), [((1000, 90), (512, 46)), ((20, 600), (17, 512)), ((40, 512), (40, 512)), ((1, 1), (1, 1))]
)
@pytest.mark.filterwarnings("error")
def test_explain_keeps_proportions_and_enlarges_nothing(pushpull, model_file, tmp_path, monkeypatch, size, seen):
    pictures, write = [], drawing.write_explanation

    def written(out, unit, picture, *rest, **options):
        pictures.append(picture)
        return write(out, unit, picture, *rest, **options)

    monkeypatch.setattr(drawing, "write_explanation", written)
    Image.new("RGB", size, (90, 120, 30)).save(tmp_path / "photo.png")
    assert pushpull("explain", model_file, tmp_path / "photo.png", "--out", tmp_path / "explained.png")[0] == 0
    assert pictures[0].shape == (3, *reversed(seen))


def test_explain_shows_a_model_of_greyscale_images_the_luminance(
    pushpull, greyscale_file, photo, tmp_path, monkeypatch
):
    given = []
    monkeypatch.setattr(drawing, "write_explanation", lambda out, unit, picture, x, **_: given.extend([picture, x]))
    assert pushpull("explain", greyscale_file, photo, "--out", tmp_path / "explained.png")[0] == 0
    grey = torch.from_numpy(np.array(Image.open(photo).convert("L")))
    assert torch.equal(given[0], grey.expand(3, -1, -1))
    torch.testing.assert_close(given[1], (grey / 255 - 0.5)[None, None].expand(1, 3, -1, -1) / 0.25)


def test_explain_refuses_what_it_cannot_draw(pushpull, model_file, photo, tmp_path):
    spec = ModelSpec("resnet20", 10, None, None, (0.5,) * 3, (0.25,) * 3, layer={"kind": "surround"})
    save_checkpoint(tmp_path / "plain.safetensors", spec.build(), spec)
    out = ["--out", tmp_path / "explained.png"]
    refused(pushpull("explain", tmp_path / "plain.safetensors", photo, *out), "plain.safetensors", "no push-pull unit")
    refused(pushpull("explain", tmp_path / "gone.safetensors", photo, *out), "gone.safetensors", "does not exist")
    refused(pushpull("explain", tmp_path, photo, *out), f"'{tmp_path}' has no model.safetensors; give one")
    refused(pushpull("explain", model_file, tmp_path / "gone.png", *out), "gone.png", "does not exist")
    refused(pushpull("explain", model_file, photo, "--out", tmp_path / "a.gif"), "a.gif", ".png")
    for filters in (0, 17):
        refused(pushpull("explain", model_file, photo, *out, "--filters", filters), f"filters is {filters}", "1 to 16")
    assert not (tmp_path / "explained.png").exists()
