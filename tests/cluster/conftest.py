"""A SLURM that only keeps a queue, and a run of the quickstart's shape."""

import json
import os
import sys

import pytest

from pushpull_conv.cluster.tasks import Run

# Acts as sbatch, squeue, scancel or scontrol, by the name under which it is called, on one JSON file.
PROGRAM = """#!{python}
import json, pathlib, sys
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
file = pathlib.Path({state!r})
state = json.loads(file.read_text())
state["calls"].append([name, *words])
options = dict(word.split("=", 1) for word in words if "=" in word)
if name == "sbatch":
    script = words[-1]
    if state["refusal"] and state["refusal"][0] in script:
        sys.exit("sbatch: error: " + "\\nsbatch: error: ".join(state["refusal"][1:]))
    state["jobs"] += 1
    reason = "Dependency" if "--dependency" in options else "Priority"
    numbers = options["--array"].partition("%")[0].split(",")
    state["queue"] += [[str(state["jobs"]), number, "PENDING", reason, script] for number in numbers]
    print(state["jobs"])
elif name == "squeue":
    print("".join("|".join(entry) + "\\n" for entry in state["queue"]), end="")
elif name == "scancel":
    state["queue"] = [entry for entry in state["queue"] if "_".join(entry[:2]) not in words]
file.write_text(json.dumps(state))
"""


class FakeSlurm:
    """The queue that the fake commands work on."""

    def __init__(self, folder):
        self.bin = folder / "bin"
        self.file = folder / "slurm.json"
        self.bin.mkdir()
        self._write({"calls": [], "jobs": 0, "queue": [], "refusal": []})
        for name in ("sbatch", "squeue", "scancel", "scontrol"):
            program = self.bin / name
            program.write_text(PROGRAM.format(python=sys.executable, state=str(self.file)))
            program.chmod(0o755)

    def _write(self, state):
        self.file.write_text(json.dumps(state))

    @property
    def state(self):
        return json.loads(self.file.read_text())

    def calls(self, name):
        return [call[1:] for call in self.state["calls"] if call[0] == name]

    def change(self, **changes):
        self._write({**self.state, **changes})


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return fake


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def run(tmp_path):
    """A run with a student, whose teacher comes after it."""
    teachers = {"baseline": None, "student": "PP3", "PP3": None}
    return Run((tmp_path / "run").resolve(), "small", 3, teachers)
