"""`docs/surgery.md` against the code: a sample of its rows, and every kind of refusal, made anew."""

import re
from pathlib import Path

import pytest

from steps import load_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "surgery.md").read_text(encoding="utf-8")
ROWS = {
    line.split(" | ")[0].removeprefix("| "): line
    for line in PAGE.splitlines()
    if re.match(r"\| (timm|torchvision):", line)
}
REFUSED = {name: line for name, line in ROWS.items() if "| refused: " in line}
LARGEST = float(re.search(r"of at most (\d+) million parameters", PAGE).group(1)) * 1e6
BUILT_FOR_REAL = "torchvision:regnet"  # seconds each, having no form without memory
STEPPED = [
    "timm:resnet10t", "timm:tf_mobilenetv3_small_minimal_100", "timm:nf_regnet_b0", "timm:mixer_s32_224",
    "timm:convnext_atto", "timm:edgenext_xx_small", "torchvision:squeezenet1_0", "torchvision:mobilenet_v3_small",
]  # fmt: skip


def first_of_each(lines):
    """One network of each reason, whatever names it tells."""
    return list(
        {re.sub(r"'[^']+'|\([^)]*\)", "", line.split("refused: ")[1]): name for name, line in lines.items()}.values()
    )


SWAPPED = [name for name in ROWS if name not in REFUSED and not name.startswith(BUILT_FOR_REAL)][::55]


@pytest.fixture(scope="module")
def zoo():
    return load_script(ROOT / "benchmarks" / "zoo.py")


def test_the_table_has_every_network_of_both_libraries_at_its_writing():
    counts = re.search(r"All (\d+) architectures: torchvision's (\d+) classifiers and timm's (\d+)", PAGE)
    assert [int(count) for count in counts.groups()] == [
        len(ROWS),
        sum(name.startswith("torchvision:") for name in ROWS),
        sum(name.startswith("timm:") for name in ROWS),
    ]  # fmt: skip
    assert f"**{len(ROWS) - len(REFUSED)} were swapped**" in PAGE
    assert f"**{len(REFUSED)} refused**" in PAGE
    assert sum(name.startswith("timm:") for name in ROWS) >= 200


@pytest.mark.parametrize("name", SWAPPED + first_of_each(REFUSED))
def test_a_row_is_what_the_code_does(zoo, name):
    """Swapped without memory; the step is another test's."""
    fresh, written = str(zoo.examine(name, largest=0)), ROWS[name]
    assert fresh.rsplit("|", 2)[0] == written.rsplit("|", 2)[0]
    parameters = float(written.split(" | ")[1]) * 1e6
    if name not in REFUSED and abs(parameters - LARGEST) > 1e5:
        assert written.endswith("| larger |") == (parameters > LARGEST)


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_is_what_the_code_does(zoo, name):
    assert str(zoo.examine(name, LARGEST)) == ROWS[name]
    assert ROWS[name].endswith(" px |")


def test_a_unit_that_is_never_called_is_noticed(zoo, monkeypatch):
    """A swap in a network that reads its stem's weights past the stem would be silent otherwise."""
    from torch import nn

    class Sideways(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return nn.functional.conv2d(x, self.stem.weight).mean((2, 3))[:, :3]

    from pushpull_conv import swap_first_conv_

    monkeypatch.setattr(
        zoo, "create_model", lambda name, **settings: swap_first_conv_(Sideways(), trainable_alpha=True)[0]
    )
    assert zoo.train_a_step("timm:sideways") == "the unit was called 0 times"
