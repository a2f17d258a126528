"""What a folder says about where its results come from."""

import shlex

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
    (tmp_path / PROVENANCE_FILE).write_text('{"training": ')
    with pytest.raises(InputError, match=r"provenance\.json' is damaged"):
        read_provenance(tmp_path)
