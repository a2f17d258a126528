"""What is submitted, and that nothing is submitted twice."""

import shlex
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import finish_cells, finish_results, finish_training

from pushpull_conv import InputError
from pushpull_conv.cluster import slurm as commands
from pushpull_conv.cluster.scripts import Resources
from pushpull_conv.cluster.slurm import Queued
from pushpull_conv.cluster.submission import Plan, dry_run, plan, submit
from pushpull_conv.cluster.tasks import Task
from steps import refused

ALL = "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14"


def submitted(run, resources=None):
    return list(submit(run, resources or Resources(), python="python", data=None))


def arrays(slurm):
    """What sbatch was asked: array, numbers, dependency."""
    found = []
    for words in slurm.calls("sbatch"):
        options = dict(word.split("=", 1) for word in words if "=" in word)
        found.append((words[-1].rpartition("/")[2], options["--array"], options.get("--dependency")))
    return found


def test_everything_is_submitted_in_the_order_of_what_waits(run, slurm):
    lines = submitted(run)
    assert arrays(slurm) == [
        ("train.sh", "0,2", None),
        ("train.sh", "1", "afterok:1_2"),
        ("benchmark-baseline.sh", ALL, "afterok:1_0"),
        ("benchmark-student.sh", ALL, "afterok:2"),
        ("benchmark-PP3.sh", ALL, "afterok:1_2"),
        ("compare.sh", "0", "afterok:3:4:5"),
    ]
    assert lines[0] == "train: 2 submitted as job 1"
    assert lines[-1] == "0 in the queue before, 0 done"
    for name, _, _ in arrays(slurm):
        assert (run.folder / "cluster" / name).read_text().startswith("#!/bin/bash")
    assert (run.folder / "cluster" / "logs").is_dir()


def test_a_second_call_submits_nothing(run, slurm):
    submitted(run)
    assert submitted(run) == ["49 in the queue before, 0 done"]
    assert len(slurm.calls("sbatch")) == 6
    assert slurm.calls("scancel") == []


def test_only_what_is_missing_is_submitted(run, slurm):
    for variant in ("baseline", "student"):
        finish_training(run, variant)
        finish_results(run.folder / variant)
    finish_training(run, "PP3")
    for corruption in ("gaussian_noise", "fog", "snow"):
        finish_cells(run, "PP3", corruption)
    submitted(run)
    missing = "0,1,2,3,4,5,6,8,10,11,12,13,14"  # 7: snow, 9: fog; 0 lacks the clean images
    assert arrays(slurm) == [("benchmark-PP3.sh", missing, None), ("compare.sh", "0", "afterok:1")]


def test_a_failed_training_is_submitted_again_with_what_waited_for_it(run, slurm):
    """The student failed; its benchmark has not left the queue yet; the other tasks go on, and the report waits."""
    submitted(run)
    finish_training(run, "PP3")
    queue = [entry for entry in slurm.state["queue"] if entry[:2] not in (["2", "1"], ["1", "2"])]
    slurm.change(queue=queue, calls=[])
    assert submitted(run)[:3] == [
        "train: 1 submitted as job 7",
        "benchmark-student: 15 submitted as job 8",
        "compare: 1 submitted as job 9",
    ]
    assert slurm.calls("scancel") == [[*(f"4_{number}" for number in range(15)), "6_0"]]
    *first, (_, _, dependency) = arrays(slurm)
    assert first == [("train.sh", "1", None), ("benchmark-student.sh", ALL, "afterok:7")]
    old = [f"{job}_{number}" for job in (3, 5) for number in range(15)]
    assert dependency.removeprefix("afterok:").split(":") == ["8", *old]
    slurm.change(calls=[])
    submitted(run)
    assert arrays(slurm) == []


@pytest.mark.parametrize("call", [submit, dry_run])
def test_a_task_that_ends_while_slurm_is_asked_is_not_submitted_again(run, slurm, monkeypatch, call):
    submitted(run)
    slurm.change(calls=[])
    ask = commands.queue

    def ask_at_the_end():
        finish_training(run, "PP3")
        slurm.change(queue=[entry for entry in slurm.state["queue"] if entry[:2] != ["1", "2"]])
        return ask()

    monkeypatch.setattr(commands, "queue", ask_at_the_end)
    lines = list(call(run, Resources(), python="python", data=None))
    assert lines == (["48 in the queue before, 1 done"] if call is submit else [])
    assert slurm.calls("sbatch") == slurm.calls("scancel") == []


def test_what_waits_for_what_cannot_come_true_is_not_queued(run, slurm):
    submitted(run)
    queue = [[*entry[:3], "DependencyNeverSatisfied", entry[4]] for entry in slurm.state["queue"] if entry[0] == "4"]
    slurm.change(queue=queue + [entry for entry in slurm.state["queue"] if entry[0] != "4"], calls=[])
    submitted(run)
    assert [name for name, _, _ in arrays(slurm)] == ["benchmark-student.sh", "compare.sh"]


def test_other_jobs_in_the_queue_are_not_ours(run, slurm):
    others = ["9|N/A|RUNNING|None|/elsewhere/train.sh", "8|0|RUNNING|None|/elsewhere/cluster/train.sh"]
    others += ["7|0|PENDING|Priority|(null)", f"6|N/A|RUNNING|None|{run.cluster}/train.sh"]
    slurm.change(queue=[line.split("|") for line in others])
    submitted(run)
    assert len(arrays(slurm)) == 6


def test_what_was_submitted_before_sbatch_refused_stays(run, slurm):
    slurm.change(refusal=["benchmark-PP3.sh", "invalid partition specified: x", "Batch job submission failed"])
    with pytest.raises(InputError, match=r"^sbatch: invalid partition specified: x; Batch job submission failed$"):
        submitted(run)
    slurm.change(refusal=[], calls=[])
    submitted(run)
    assert [name for name, _, _ in arrays(slurm)] == ["benchmark-PP3.sh", "compare.sh"]


def test_two_submissions_at_once_are_one(run, slurm):
    first = submit(run, Resources(), python="python", data=None)
    next(first)
    with pytest.raises(InputError, match="being submitted"):
        submitted(run)
    assert len(list(first)) == 6
    assert len(slurm.calls("sbatch")) == 6


def test_a_limit_of_tasks_at_once_goes_to_every_array(run, slurm):
    submitted(run, Resources(at_once=2))
    assert all(numbers.endswith("%2") for _, numbers, _ in arrays(slurm))


@st.composite
def situations(draw):
    """Any tasks in order, some done, some queued or running."""
    tasks, queue = [], {}
    for number in range(draw(st.integers(1, 12))):
        key = (draw(st.sampled_from("abc")), number)
        waits_for = tuple(draw(st.sets(st.sampled_from([task.key for task in tasks])))) if tasks else ()
        ready = all(task.done for task in tasks if task.key in waits_for)
        tasks.append(Task(key, "", waits_for, done=ready and draw(st.booleans())))
        if draw(st.booleans()):
            queue[key] = Queued("7", running=ready and draw(st.booleans()), reason="None")
    return tasks, queue


@given(situations())
def test_after_a_submission_all_that_is_not_done_is_in_the_queue_once(situation):
    tasks, queue = situation
    todo = plan(tasks, queue)
    sent = [(batch.array, number) for batch in todo.batches for number in batch.numbers]
    kept = queue.keys() - set(todo.withdrawn)
    assert len(sent) == len(set(sent))
    assert not set(sent) & kept
    undone = {task.key for task in tasks if not task.done}
    assert undone == set(sent) | (kept & undone)
    assert todo.done == len(tasks) - len(undone)
    assert not any(queue[key].running for key in todo.withdrawn)
    known = set(kept)
    for batch in todo.batches:
        assert set(batch.waits_for) <= known, "waits for what is neither in the queue nor submitted before"
        known |= {(batch.array, number) for number in batch.numbers}
    for task in tasks:
        if task.key in kept and not queue[task.key].running and not task.done:
            assert not set(task.waits_for) & set(sent), "waits for a job that is gone"
    again = plan(tasks, {**{key: queue[key] for key in kept}, **dict.fromkeys(sent, Queued("8", False, "Priority"))})
    assert again == Plan((), (), len(kept & undone) + len(sent), todo.done)


SUBMIT = ["submit", "quickstart", "--set", "training.epochs=1"]


def test_submit_and_status_on_the_command_line(pushpull, slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = pushpull(*SUBMIT, "--partition", "gpu", "--gpus", "2", "--data", "")
    assert code == 2
    code, out, err = pushpull(*SUBMIT, "--partition", "gpu", "--gpus", "2")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "train: 2 submitted as job 1",
        "benchmark-baseline: 15 submitted as job 2",
        "benchmark-PP3: 15 submitted as job 3",
        "compare: 1 submitted as job 4",
        "0 in the queue before, 0 done",
    ]
    text = (tmp_path / "runs/quickstart/cluster/train.sh").read_text()
    assert "#SBATCH --partition=gpu\n#SBATCH --gres=gpu:2\n" in text
    assert f"train {tmp_path}/runs/quickstart/recipe.yaml --out {tmp_path}/runs/quickstart --devices 2 " in text
    code, out, err = pushpull("status")
    assert (code, err) == (0, "")
    assert "33 tasks: 33 queued (31 Dependency, 2 Priority); report: queued" in out
    monkeypatch.setenv("COLUMNS", "30")
    assert "0 of 76  q q q  q q q q  q q q q  q q q q\n" in pushpull("status")[1], "wider than that, but whole"
    refused(pushpull("submit", "quickstart"), "another recipe", "training.epochs is 1 there, 12 here", "--out")
    slurm.change(refusal=["train.sh", "invalid partition specified: x"])
    refused(pushpull(*SUBMIT, "--out", "other"), "sbatch: invalid partition specified: x")


def test_a_dry_run_prints_scripts_and_calls_and_leaves_nothing(pushpull, no_slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = pushpull(*SUBMIT, "--dry-run")
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "quickstart" / "cluster"
    assert out.count("#!/bin/bash\n") == 4
    assert out.splitlines()[-4:] == [
        f"sbatch --parsable --array=0,1 {folder}/train.sh",
        f"sbatch --parsable --array={ALL} --dependency=afterok:<train>_0 {folder}/benchmark-baseline.sh",
        f"sbatch --parsable --array={ALL} --dependency=afterok:<train>_1 {folder}/benchmark-PP3.sh",
        "sbatch --parsable --array=0 --dependency=afterok:<benchmark-baseline>:<benchmark-PP3> "
        + f"{folder}/compare.sh",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_dry_runs_calls_can_be_pasted_where_the_folder_has_spaces(pushpull, no_slurm, tmp_path):
    code, out, err = pushpull(*SUBMIT, "--dry-run", "--out", tmp_path / "my run")
    assert (code, err) == (0, "")
    assert shlex.split(out.splitlines()[-4])[-1] == f"{tmp_path}/my run/cluster/train.sh"


def test_slurm_is_asked_once_for_all_runs(pushpull, slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pushpull(*SUBMIT)[0] == 0
    assert pushpull(*SUBMIT, "--out", "runs/again")[0] == 0
    slurm.change(queue=slurm.state["queue"][:-1], calls=[])  # the last is the second run's report
    code, out, err = pushpull("status")
    assert (code, err, len(slurm.calls("squeue"))) == (0, "", 1)
    assert [line for line in out.splitlines() if "tasks: " in line] == [
        "33 tasks: 32 queued (30 Dependency, 2 Priority), 1 not submitted; report: not yet",
        "33 tasks: 33 queued (31 Dependency, 2 Priority); report: queued",
    ]


def test_where_slurm_does_not_answer_the_files_alone_speak(pushpull, slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pushpull(*SUBMIT)[0] == 0
    assert pushpull(*SUBMIT, "--out", "runs/again")[0] == 0
    (slurm.bin / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact controller' >&2\nexit 1\n"
    )
    told = "not known: squeue: Unable to contact controller"
    code, out, err = pushpull("status")
    assert (code, err, out.count(told), out.count("33 tasks: none done")) == (0, "", 1, 2)
    code, out, err = pushpull(*SUBMIT, "--dry-run")
    assert (code, err, out.count("sbatch --parsable")) == (0, "", 4)
    assert out.splitlines()[0] == f"# as if nothing were in the queue, which is {told}"
    for run in ("runs/again", "runs/new"):
        refused(pushpull(*SUBMIT, "--out", run), "squeue: Unable to contact controller")
    assert not (tmp_path / "runs" / "new").exists()


def test_a_folder_that_is_no_run_does_not_hide_the_others(pushpull, no_slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "recipe.yaml").write_text("extends: quickstart\n")
    code, out, err = pushpull("status")
    assert (code, err) == (0, "")
    assert "runs/mine/recipe.yaml' is no resolved recipe" in " ".join(out.split())
    refused(pushpull("status", "runs/mine"), "no resolved recipe")


def test_what_cannot_be_submitted_is_refused_before_anything_is_written(pushpull, no_slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(pushpull(*SUBMIT), "sbatch and squeue are not on this machine", "pushpull run")
    refused(pushpull(*SUBMIT, "--gpus", "many"), "--gpus 'many'")
    refused(pushpull("status"), "no run in 'runs'")
    refused(pushpull("status", "nowhere"), "'nowhere' holds no run")
    assert not (tmp_path / "runs").exists()


def test_images_that_do_not_fit_are_refused_before_anything_is_submitted(pushpull, slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(pushpull(*SUBMIT, "--set", "benchmark.suite=imagenet-c"), "224 x 224")
    assert slurm.calls("sbatch") == []


def test_gpus_that_cannot_share_a_batch_are_refused_before_anything_is_submitted(pushpull, slurm, tmp_path):
    call = [*SUBMIT, "--gpus", "a100:3", "--out", tmp_path / "run"]
    refused(pushpull(*call), "batch_size 32 is not a multiple of the 3 devices that share a batch")
    assert slurm.calls("sbatch") == []
    assert not (tmp_path / "run").exists()


def test_a_folder_without_space_or_leave_is_refused(pushpull, slurm, tmp_path):
    (tmp_path / "file").write_text("")
    refused(pushpull(*SUBMIT, "--out", tmp_path / "file" / "out"), "cannot be written")
    assert shutil.which("sbatch").startswith(str(slurm.bin))
    assert slurm.calls("sbatch") == []
