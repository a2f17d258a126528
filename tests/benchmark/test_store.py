"""The folder of finished cells, claimed by several at the same time."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from pushpull_conv.benchmark import Cell, Header, counted_model, store
from pushpull_conv.benchmark.store import CellStore
from pushpull_conv.errors import InputError
from pushpull_conv.files import CLEAN

HEADER = Header("digits", "test", "f00", 1, ("a",), "cifar10-c", 1, seed=0, frost=None, version="1")
CELL = Cell(n=1, top1=1, top5=1, class_n=(1,), class_top1=(1,))
CLAIMANTS = 8


@pytest.fixture
def claim_together(tmp_path, monkeypatch):
    """Claim one folder with several seeds, of whom none finds another's claim at first; give the seeds let in."""

    def claim_all(seeds):
        together, write = Barrier(len(seeds)), store._write_json

        def write_together(path, content):
            if path.name == "header.json":
                together.wait()
            write(path, content)

        monkeypatch.setattr(store, "_write_json", write_together)
        with ThreadPoolExecutor(len(seeds)) as claimants:
            return [seed for seed, let_in in zip(seeds, claimants.map(claim, seeds), strict=True) if let_in]

    def claim(seed):
        try:
            claimed = CellStore(
                tmp_path / "cells", model="m", weights="w", header=dataclasses.replace(HEADER, seed=seed)
            )
            claimed.add(CLEAN, CELL)
        except InputError:
            return False
        return True

    return claim_all


@pytest.mark.parametrize("attempt", range(5))
def test_of_first_claimants_that_differ_one_is_let_in(claim_together, tmp_path, attempt):
    found = claim_together(range(CLAIMANTS))
    assert found == [json.loads((tmp_path / "cells" / "header.json").read_text())["seed"]]
    assert sorted(file.name for file in (tmp_path / "cells").iterdir()) == ["clean.json", "header.json"]


def test_first_claimants_that_agree_are_all_let_in(claim_together):
    assert claim_together([3] * CLAIMANTS) == [3] * CLAIMANTS


def test_a_folder_on_a_file_system_without_hard_links_can_be_claimed(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for _ in range(2):
        CellStore(tmp_path, model="m", weights="w", header=HEADER).add(CLEAN, CELL)
    with pytest.raises(InputError, match="holds cells with seed 0, not 1"):
        CellStore(tmp_path, model="m", weights="w", header=dataclasses.replace(HEADER, seed=1))


@pytest.mark.parametrize("said", ["[]", "{}", '{"model": "m", "weights": "w", "seed": 0}'])
def test_cells_of_nobody_are_not_taken_for_ones_own(tmp_path, said):
    (tmp_path / "header.json").write_text(said)
    with pytest.raises(InputError, match=r"header.json' does not say whose cells lie beside it; delete"):
        CellStore(tmp_path, model="m", weights="w", header=HEADER)


def test_nobody_is_counted_in_a_folder_that_names_none(tmp_path):
    assert counted_model(tmp_path) is None
    for said in ("[]", "{}"):
        (tmp_path / "header.json").write_text(said)
        assert counted_model(tmp_path) is None


def test_a_claim_without_the_fields_that_came_later_means_their_defaults(tmp_path):
    CellStore(tmp_path, model="m", weights="w", header=HEADER).add(CLEAN, CELL)
    written = json.loads((tmp_path / "header.json").read_text())
    for name in ("origin", "jpeg_quality", "autocast"):
        del written[name]
    (tmp_path / "header.json").write_text(json.dumps(written))
    assert CellStore(tmp_path, model="m", weights="w", header=HEADER).cells() == {CLEAN: CELL}
    with pytest.raises(InputError, match="holds cells with autocast None, not 'bfloat16'"):
        CellStore(tmp_path, model="m", weights="w", header=dataclasses.replace(HEADER, autocast="bfloat16"))
