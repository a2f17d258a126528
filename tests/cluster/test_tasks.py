"""The tasks of a run and what of it is done."""

import os
import subprocess
import sys

import pytest
from run_files import finish_cells, finish_results, finish_training

from pushpull_conv import CORRUPTIONS, InputError
from pushpull_conv.cluster.tasks import PARTS, Run, open_run, tasks
from pushpull_conv.training.recipe import load_recipe


def by_key(run):
    return {task.key: task for task in tasks(run)}


def test_the_parts_are_the_whole_benchmark():
    assert [name for part in PARTS for name in part] == ["clean", *CORRUPTIONS]


def test_each_task_comes_after_what_it_waits_for(run):
    seen = set()
    for task in tasks(run):
        assert set(task.waits_for) <= seen
        seen.add(task.key)
    assert len(seen) == 3 + 3 * 15 + 1


def test_a_student_waits_for_its_teacher_and_a_benchmark_for_its_variant(run):
    found = by_key(run)
    assert found["train", 1].waits_for == (("train", 2),)
    assert found["train", 2].waits_for == ()
    assert found["benchmark-student", 7].waits_for == (("train", 1),)
    assert len(found["compare", 0].waits_for) == 45


def test_files_say_what_is_done(run):
    assert not any(task.done for task in tasks(run))
    finish_training(run, "PP3")
    finish_cells(run, "PP3", "gaussian_noise")
    finish_cells(run, "PP3", "fog", [1, 2, 4])
    finish_cells(run, "PP3", "snow")
    assert {task.key for task in tasks(run) if task.done} == {("train", 2), ("benchmark-PP3", PARTS.index(("snow",)))}
    assert run.counted("PP3")["fog"] == (3, 5)
    (run.folder / "PP3" / "cells" / "clean.json").write_text("{}")
    assert by_key(run)["benchmark-PP3", 0].done


def test_kept_epochs_are_benchmarked_too(run):
    finish_cells(run, "PP3", "snow")
    (run.folder / "PP3" / "epochs" / "002").mkdir(parents=True)
    assert run.counted("PP3")["snow"] == (5, 10)
    finish_results(run.folder / "PP3" / "epochs" / "002")
    assert run.counted("PP3")["snow"] == (10, 10)


def test_results_of_a_part_are_not_the_whole_benchmark(run):
    """As `pushpull evaluate --corruption fog --severity 1` leaves in a run's folder."""
    finish_training(run, "PP3")
    finish_results(run.folder / "PP3", ["fog"], [1])
    assert [run.counted("PP3")[name] for name in ("clean", "fog", "snow")] == [(1, 1), (1, 5), (0, 5)]
    assert not [task for task in tasks(run) if task.done and task.key[0] == "benchmark-PP3"]
    (run.folder / "PP3" / "results.json").write_text('{"cells": [')
    assert run.counted("PP3")["fog"] == (0, 5)


def test_a_finished_run_is_done(run):
    for variant in run.teachers:
        finish_training(run, variant)
        finish_results(run.folder / variant)
    assert [task.key for task in tasks(run) if not task.done] == [("compare", 0)]
    (run.folder / "report").mkdir()
    page = run.folder / "report" / "index.html"
    page.write_text("")
    assert all(task.done for task in tasks(run))
    os.utime(page, (0, 0))  # of fewer variants, perhaps
    assert [task.key for task in tasks(run) if not task.done] == [("compare", 0)]


@pytest.mark.parametrize("name", ["quickstart", "cifar10-resnet20-distilled"])
def test_a_stored_recipe_and_a_validated_one_give_the_same_run(tmp_path, name):
    recipe = load_recipe(name)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    run = open_run(tmp_path)
    assert run == Run.of(recipe.model_dump(), tmp_path)
    lessons = {variant.name: variant.distillation for variant in recipe.variants}
    assert run.teachers == {name: lesson.teacher if lesson else None for name, lesson in lessons.items()}


def test_repeated_trainings_are_tasks_like_any(tmp_path):
    recipe = load_recipe("cifar10-resnet20-distilled", ["repeats=3"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    run = open_run(tmp_path)
    assert list(run.teachers) == [training.name for training in recipe.trainings]
    lessons = {training.name: training.distillation for training in recipe.trainings}
    assert run.teachers == {name: lesson.teacher if lesson else None for name, lesson in lessons.items()}
    assert run.teachers["PP3-distilled@1236"] == "baseline@1236"


def test_what_holds_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path)
    for text in ("[1, 2", "name: a", "- 3", "variants: [7]"):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(InputError, match="no resolved recipe"):
            open_run(tmp_path)


def test_tasks_and_status_are_known_without_torch():
    code = (
        "import sys, pushpull_conv.cluster.status, pushpull_conv.cluster.submission; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
