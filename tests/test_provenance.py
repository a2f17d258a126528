"""What a folder says about where its results come from."""

import shlex
import subprocess

import pytest

from pushpull_conv import InputError
from pushpull_conv.provenance import PROVENANCE_FILE, provenance, read_provenance, recorded


def test_the_command_can_be_pasted_into_a_shell(monkeypatch):
    words = ["pushpull", "run", "quickstart", "--set", "variants=[baseline, PP3]", "--out", "my runs/é"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/pushpull", *words[1:]])
    assert shlex.split(provenance()["command"]) == words


def test_a_step_that_found_all_done_leaves_its_record(tmp_path, monkeypatch):
    def step(argument, content):
        monkeypatch.setattr("sys.argv", ["pushpull", argument])
        with recorded(tmp_path, "benchmark", "results.json"):
            (tmp_path / "results.json").write_text(content)
        return read_provenance(tmp_path)["benchmark"]["command"]

    assert step("first", "half") == "pushpull first"
    assert step("second", "whole") == "pushpull second"
    assert step("third", "whole") == "pushpull second"
    (tmp_path / PROVENANCE_FILE).unlink()
    assert step("fourth", "whole") == "pushpull fourth"


def test_a_damaged_record_is_named(tmp_path):
    assert read_provenance(tmp_path) == {}
    for damaged in ('{"training": ', "[]", '{"training": 1}'):
        (tmp_path / PROVENANCE_FILE).write_text(damaged)
        with pytest.raises(InputError, match=r"provenance\.json' is damaged"):
            read_provenance(tmp_path)


def test_the_commit_is_that_of_this_package_alone(tmp_path, monkeypatch):
    """Not that of a project within whose checkout it is installed."""
    installed = tmp_path / ".venv" / "provenance.py"
    installed.parent.mkdir()
    installed.write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=paper"], check=True)
    monkeypatch.setattr("pushpull_conv.provenance.__file__", str(installed))
    assert provenance()["commit"] == ""
    subprocess.run([*git, "add", "."], check=True)
    assert provenance()["commit"].endswith("+")
