"""What a dry run tells, and that it does nothing."""

import io
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pushpull_conv import CORRUPTIONS, evaluate, planning, ranks
from pushpull_conv.benchmark import wanted_cells
from pushpull_conv.errors import InputError
from pushpull_conv.experiment import Experiment
from pushpull_conv.files import MODEL_FILE, RECIPE_FILE, RESULTS_FILE, cell_file, in_use
from pushpull_conv.planning import Planned, plan, plan_table
from pushpull_conv.training.fit import build
from pushpull_conv.training.module import ClassifierTraining
from pushpull_conv.training.recipe import load_recipe

SMALL_MODEL = "model.name=timm:test_resnet"
RUNS = sorted(path.parent for path in (Path(__file__).parents[1] / "results").glob(f"*/{RECIPE_FILE}"))


def test_a_plan_counts_steps_cells_and_bytes_and_writes_nothing(tmp_path):
    recipe = load_recipe("quickstart", ["training.epochs=5", "benchmark.every=2", "variants=[baseline, PRIME+PP3]"])
    experiment = Experiment(recipe, tmp_path / "run", data_root=None, console=Console(quiet=True))
    planned = plan(experiment)
    assert list(tmp_path.iterdir()) == []
    assert [one.variant for one in planned] == ["baseline", "PRIME+PP3"]
    for one in planned:
        assert one.steps == 5 * (1442 // 32)
        assert one.cells == 3 * 76, "after epochs 2 and 4, and the last"
        assert one.bytes == pytest.approx(7 * 4 * 272_000, rel=0.02), "a ResNet-20 of 0.27 million weights"
        assert one.training_seconds > 0
        assert one.benchmark_seconds > 0


def test_the_steps_that_are_timed_are_those_of_the_training(tmp_path, monkeypatch):
    """With the teacher, and the views of the consistency loss."""
    variants = ["baseline", "{name: taught, distillation: {teacher: baseline}}"]
    variants += ["{name: consistent, augment: {policy: prime, consistency: 12}}"]
    recipe = load_recipe("quickstart", [f"variants=[{', '.join(variants)}]"])
    timed, loss = [], ClassifierTraining.loss

    def watched(module, batch, epoch):
        timed.append((len(module._views(batch, epoch)), len(module._teacher)))
        return loss(module, batch, epoch)

    monkeypatch.setattr(ClassifierTraining, "loss", watched)
    plan(Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True)))
    assert list(dict.fromkeys(timed)) == [(1, 0), (1, 1), (3, 0)]


@pytest.fixture
def even_costs(monkeypatch):
    """For each image 1 s in training, 10 in validation, 100 for its versions in the network and 1000 to make them."""
    timed = []

    def cost(experiment, variant, *, train, benchmark):
        timed.append(variant)
        return planning._Cost(1.0 * train, 10.0 * train, 100.0 * benchmark, 1)

    monkeypatch.setattr(planning, "_cost", cost)
    monkeypatch.setattr(planning, "_corrupting_seconds", lambda experiment: 1000.0)
    return timed


def test_what_is_half_done_takes_the_time_that_is_left(tmp_path, even_costs):
    """Done are two of five epochs, and of three models the cells of one, and of the next fog and the clean images."""
    recipe = load_recipe("quickstart", ["training.epochs=5", "benchmark.every=2", "variants=[baseline]"])
    experiment = Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True))
    (whole,) = plan(experiment)
    assert whole.training_seconds == 5 * (45 * 32 + 355 * 10), "with the validation of every epoch"
    assert whole.benchmark_seconds == pytest.approx(3 * 76 / 76 * 355 * 1100)
    experiment.claim()
    folder = tmp_path / "baseline"
    for cells in (folder / "epochs" / "002" / "cells", folder / "epochs" / "004" / "cells"):
        cells.mkdir(parents=True)
    (folder / "metrics.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    for epoch, corruptions in {"002": CORRUPTIONS, "004": ["fog"]}.items():
        for key in wanted_cells(corruptions):
            (folder / "epochs" / epoch / "cells" / cell_file(*key)).touch()
    (left,) = plan(experiment)
    assert left.training_seconds == 3 * (45 * 32 + 355 * 10)
    assert left.benchmark_seconds == pytest.approx((2 * 76 - 6) / 76 * 355 * 1100)
    assert (left.steps, left.cells, left.bytes) == (whole.steps, whole.cells, whole.bytes)


def test_validation_is_timed_at_the_precision_of_training_and_only_where_training_is_left(tmp_path, monkeypatch):
    seen, forward = [], planning.Classifier.forward

    def watched(classifier, images):
        logits = forward(classifier, images)
        if not classifier.training and torch.is_inference_mode_enabled():
            seen.append(logits.dtype)
        return logits

    monkeypatch.setattr(planning.Classifier, "forward", watched)
    recipe = load_recipe("quickstart", ["training.precision=64-true", "variants=[baseline]", SMALL_MODEL])
    experiment = Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True))
    plan(experiment)
    assert set(seen) == {torch.float64, torch.float32}, "the benchmark is in float32"
    experiment.claim()
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / MODEL_FILE).touch()
    seen.clear()
    plan(experiment)
    assert set(seen) == {torch.float32}


def test_repeats_are_timed_once_those_of_a_student_too(tmp_path, even_costs):
    variants = "variants=[baseline, {name: taught, distillation: {teacher: baseline}}]"
    recipe = load_recipe("quickstart", [variants, "repeats=3"])
    planned = plan(Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True)))
    assert (len(planned), len(even_costs)) == (6, 2)


def test_a_dry_run_refuses_devices_that_are_not_there(pushpull):
    code, _, err = pushpull("run", "quickstart", "--dry-run", "--devices", "999")
    assert code == 2
    assert "--devices 999 is not from 1 to" in err


def test_a_dry_run_refuses_devices_that_cannot_share_a_batch_unless_all_is_trained(pushpull, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "usable_cores", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    call = ["run", "quickstart", "--dry-run", "--devices", "3", "--out", tmp_path]
    code, out, err = pushpull(*call)
    assert (code, out) == (2, "")
    assert "batch_size 32 is not a multiple of the 3 devices that share a batch" in err
    (tmp_path / RECIPE_FILE).write_text(load_recipe("quickstart").to_yaml())
    for name in ("baseline", "PP3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL_FILE).touch()
    assert pushpull(*call)[0] == 0


def test_images_that_do_not_fill_a_batch_are_refused_by_a_dry_run(tmp_path):
    recipe = load_recipe("quickstart", ["training.batch_size=5000"])
    with pytest.raises(InputError, match="1442 images do not fill one batch of 5000; lower batch_size"):
        plan(Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True)))


def test_what_is_done_takes_no_time(tmp_path):
    recipe = load_recipe("quickstart", ["variants=[baseline]"])
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / MODEL_FILE).touch()
    (tmp_path / RECIPE_FILE).write_text(recipe.to_yaml())
    (one,) = plan(Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True)))
    assert one.training_seconds == 0
    assert one.benchmark_seconds > 0


def test_results_of_a_part_are_still_to_be_counted(tmp_path):
    """As `pushpull evaluate --corruption fog` leaves in a run's folder."""
    recipe = load_recipe("quickstart", ["variants=[baseline]", "model.name=timm:test_resnet"])
    experiment = Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True))
    (tmp_path / "baseline").mkdir()
    images = experiment.images("test")
    classifier, _ = build(recipe, recipe.variant("baseline"), experiment.images("train"))
    settings = {"seed": recipe.seed, "severities": [1], "store": tmp_path / "baseline"}
    evaluate(classifier, images[:20], corruptions=["fog"], **settings).save(tmp_path / "baseline" / RESULTS_FILE)
    assert experiment.finished(tmp_path / "baseline") is None
    assert plan(experiment)[0].benchmark_seconds > 0


def test_the_command_prints_the_plan_and_does_nothing(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = pushpull("run", "quickstart", "--dry-run")
    assert (code, err) == (0, "")
    assert "PP3" in out
    assert "540" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_plan_is_whole_in_a_narrow_terminal(width):
    names = ["PP5-trainable", "AugMix-JSD+PP5-trainable-BlurredConv@1235"]
    table = plan_table([Planned(name, 14_680, 1234.0, 76, 5678.0, 8_000_000) for name in names], "CIFAR-10 [b]")
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table, crop=False)
    text = console.file.getvalue()
    assert "CIFAR-10 [b]" in text
    assert [text.count(part) for part in ("14,680", "20 min 34 s", "1 h 34 min", "29,360")] == [2, 2, 2, 1]
    end_of_names = min(line.index("14,680") for line in text.splitlines() if "14,680" in line)
    shown = "".join(line[:end_of_names].strip() for line in text.splitlines())
    assert all(name in shown for name in names)


def refused(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert "another recipe (training.epochs is 12 there, 3 here)" in " ".join(err.split())


@pytest.mark.parametrize("command", ["run", "submit"])
@pytest.mark.parametrize("left", ["last.ckpt", "model.safetensors"])
def test_a_dry_run_refuses_the_folder_of_another_recipe(pushpull, tmp_path, command, left):
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / left).touch()
    (tmp_path / "recipe.yaml").write_text(load_recipe("quickstart").to_yaml())
    refused(pushpull(command, "quickstart", "--dry-run", "--out", tmp_path, "--set", "training.epochs=3"))


def test_a_folder_is_another_recipes_from_the_start_of_its_training(pushpull, tmp_path):
    call = ["train", "quickstart", "--out", tmp_path, "--set", "training.epochs=3"]
    (tmp_path / "recipe.yaml").write_text(load_recipe("quickstart").to_yaml())
    with in_use(tmp_path / "recipe.yaml"):
        refused(pushpull(*call, "--variant", "PP3"))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("command", [["run"], ["train"], ["submit", "--dry-run"]], ids=lambda words: words[0])
@pytest.mark.parametrize(
    "text",
    [
        "# after the talk\nextends: quickstart\ntraining: {epochs: 2}\n",
        "extends: quickstart\nseed: 3\nvariants:\n- name: baseline\n",
        load_recipe("quickstart").to_yaml() + "# the one for the talk\n",
        "no: [recipe",
        "seed: caf\xe9 2024-99-99\nvariants: 5\n",
    ],
)
def test_a_recipe_that_a_user_wrote_is_not_replaced(pushpull, tmp_path, command, text):
    (tmp_path / RECIPE_FILE).write_text(text, encoding="latin-1")
    code, out, err = pushpull(*command, "quickstart", "--out", tmp_path, "--set", "training.epochs=1")
    assert (code, out) == (2, "")
    assert "recipe.yaml' was written or changed by hand, and the resolved recipe would replace it; choose" in err
    assert [path.name for path in tmp_path.iterdir()] == [RECIPE_FILE]
    assert (tmp_path / RECIPE_FILE).read_text(encoding="latin-1") == text


def test_comments_in_the_recipe_of_a_run_stay_and_do_not_stop_it(tmp_path):
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "last.ckpt").touch()
    text = "# the one for the talk\n" + load_recipe("quickstart").to_yaml()
    (tmp_path / RECIPE_FILE).write_text(text)
    Experiment(load_recipe("quickstart"), tmp_path, data_root=None, console=Console()).claim()
    assert (tmp_path / RECIPE_FILE).read_text() == text
    more = load_recipe("quickstart", ["repeats=2"])
    with pytest.raises(InputError, match="was written or changed by hand"):
        Experiment(more, tmp_path, data_root=None, console=Console())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_recipes_of_earlier_versions_may_be_replaced(tmp_path, run):
    shutil.copy(run / RECIPE_FILE, tmp_path)
    recipe = load_recipe("quickstart")
    Experiment(recipe, tmp_path, data_root=None, console=Console()).claim()
    assert load_recipe(str(tmp_path / RECIPE_FILE)) == recipe


def test_a_recipe_that_was_begun_meanwhile_is_not_replaced(tmp_path):
    first, second = (
        Experiment(
            load_recipe("quickstart", [f"training.epochs={epochs}"]), tmp_path, data_root=None, console=Console()
        )
        for epochs in (1, 2)
    )
    first.claim()
    with in_use(tmp_path / RECIPE_FILE), pytest.raises(InputError, match="epochs is 1 there, 2 here"):
        second.claim()
    assert load_recipe(str(tmp_path / RECIPE_FILE)).training.epochs == 1
