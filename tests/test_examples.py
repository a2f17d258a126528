"""The examples do what they say."""

from pathlib import Path

import pytest
from PIL import Image

from steps import load_script

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_unit_learns_and_is_explained(tmp_path, capsys):
    load_script(EXAMPLES / "explain_unit.py").main(tmp_path / "explained.png", steps=40)
    first, second = capsys.readouterr().out.splitlines()
    assert float(first.split()[1].rstrip(",")) < 1.5, "the loss starts at ln 10 = 2.3"
    assert second == str(tmp_path / "explained.png")
    with Image.open(second) as picture:
        assert min(picture.size) > 1000


@pytest.mark.slow
def test_the_whole_example(tmp_path, capsys):
    load_script(EXAMPLES / "explain_unit.py").main(tmp_path / "explained.png")
    assert float(capsys.readouterr().out.split()[1].rstrip(",")) < 0.3
