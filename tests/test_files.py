"""Files that appear whole or not at all."""

import threading
import time
from pathlib import Path

import pytest

from pushpull_conv import InputError
from pushpull_conv.files import alone, atomic_write, cell_file, csv_rows, in_use, is_in_use, kept_epochs


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(tmp_path):
    file = tmp_path / "jobs.json"
    file.write_text("before")

    def write():
        with atomic_write(file) as temporary:
            temporary.write_text("half of it")
            Path("/dev/full").write_text("the rest")

    with pytest.raises(InputError) as caught:
        write()
    assert str(file) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_file_takes_the_longest_name_and_no_longer(tmp_path):
    longest = "x" * 251 + ".txt"
    with atomic_write(tmp_path / longest) as temporary:
        temporary.write_text("whole")
    too_long = pytest.raises(InputError, match="File name too long; choose a shorter name")
    with too_long, atomic_write(tmp_path / f"x{longest}") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [longest]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "table.csv").mkdir()
    refused = pytest.raises(InputError, match=r"table\.csv' cannot be written: Is a directory; name a file")
    with refused, atomic_write(tmp_path / "table.csv") as temporary:
        temporary.write_text("whole")
    assert [path.is_dir() for path in tmp_path.iterdir()] == [True]


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        (tmp_path / "missing").read_text()
    assert not list(tmp_path.iterdir())


def test_the_clean_images_have_a_file_of_their_own():
    assert len({cell_file("clean", 0), *(cell_file("fog", severity) for severity in range(1, 6))}) == 6


def test_kept_epochs_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("1000", "005", "999", "010", "notes"):
        (tmp_path / "epochs" / name).mkdir(parents=True)
    assert [path.name for path in kept_epochs(tmp_path)] == ["005", "010", "999", "1000"]


def test_rows_are_counted_and_not_lines(tmp_path):
    (tmp_path / "a.csv").write_text('image,reason\n"a\nb.png",truncated\nc.png,empty\n')
    assert [row["image"] for row in csv_rows(tmp_path / "a.csv")] == ["a\nb.png", "c.png"]


def test_a_lock_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Who removes it at the end may do so between another's opening of it and locking it."""
    fcntl = pytest.importorskip("fcntl")
    lock, flock = tmp_path / "lock", fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *given: (lock.unlink(), flock(*given)))
    with pytest.raises(InputError, match="wait"), alone(lock, "wait"):
        pass


def test_a_lock_is_waited_for_with_patience(tmp_path):
    lock, done = tmp_path / ".lock", []

    def hold():
        with alone(lock, "never"):
            done.append("held")
            time.sleep(0.5)
            done.append("through")

    holder = threading.Thread(target=hold)
    holder.start()
    while not done:
        time.sleep(0.01)
    with alone(lock, "wait", patience=60):
        assert done == ["held", "through"]
    holder.join()
    assert not lock.exists()


def test_a_file_is_in_use_as_long_as_any_marks_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    assert not is_in_use(file)
    file.write_text("kept")
    assert not is_in_use(file)
    with in_use(file):
        with in_use(file):
            assert is_in_use(file)
        assert is_in_use(file)
    assert not is_in_use(file)
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]
