"""How far our images are from the reference's, given its random draws.

python tests/corruptions/parity.py FOLDER      # FOLDER as PUSHPULL_REFERENCE names it; prints the table of the docs
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from vectors import NAMES, Vectors, load_vectors

from pushpull_conv.corruptions import PROFILES, SEVERITIES, spec
from pushpull_conv.corruptions.engine import KERNELS


class Difference(NamedTuple):
    """Over all images and severities: the largest difference in grey levels, the fraction of values that differ."""

    largest: int
    fraction: float

    def __str__(self) -> str:
        return f"{self.largest} / {self.fraction:.1e}" if self.largest else "0"


def difference(vectors: Vectors, name: str) -> Difference:
    """Apply a corruption with the reference's draws and compare."""
    largest, differing, count = 0, 0, 0
    for severity, expected in zip(SEVERITIES, vectors.corrupted[name], strict=True):
        constants = spec.parameters(name, vectors.profile, severity)
        ours = KERNELS[name].apply(vectors.clean, constants, vectors.draws(name, severity))
        assert ours.dtype == expected.dtype
        levels = (ours.int() - expected.int()).abs()
        largest = max(largest, int(levels.max()))
        differing, count = differing + int((levels > 0).sum()), count + levels.numel()
    return Difference(largest, differing / count)


def table(folder: Path) -> str:
    """One row per corruption, one column per profile, as Markdown."""
    vectors = [load_vectors(folder, profile) for profile in PROFILES]
    rows = [[name, *(str(difference(each, name)) for each in vectors)] for name in NAMES]
    lines = [["corruption", *PROFILES], ["---"] + ["--:"] * len(PROFILES), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(table(parser.parse_args().folder))
