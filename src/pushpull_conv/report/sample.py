"""The photo that a gallery shows, and how it is corrupted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pushpull_conv.benchmark.versions import as_stored
from pushpull_conv.corruptions import FrostTextures, corrupt
from pushpull_conv.corruptions.spec import SEVERITIES


@dataclass(frozen=True)
class Sample:
    """The photo that a gallery shows, and what decides how it is corrupted.

    Attributes:
        photo: uint8 ``[3, H, W]``.
        index: The photo's place in its data set.
        seed: Seed of the benchmark.
        profile: Severity tables, one of `corruptions.PROFILES`.
        frost: The frost photographs; None for the procedural ones.
        jpeg_quality: Quality at which the benchmark stored the corrupted images as JPEG; None: as they are.
    """

    photo: Tensor
    index: int = 0
    seed: int = 0
    profile: str = "imagenet"
    frost: FrostTextures | None = None
    jpeg_quality: int | None = None

    def row(self, name: str) -> list[Tensor]:
        """Return the photo at every severity of one corruption, or alone for ``"clean"``; uint8 ``[3, H, W]`` each."""
        return [self.photo] if name == "clean" else [self.cell(name, severity) for severity in SEVERITIES]

    def cell(self, name: str, severity: int) -> Tensor:
        """Return the photo under one corruption at one severity, uint8 ``[3, H, W]``."""
        index, seed, profile = torch.tensor([self.index]), self.seed, self.profile
        made = corrupt(self.photo[None], name, severity, index=index, seed=seed, profile=profile, frost=self.frost)
        return as_stored(made, self.jpeg_quality)[0]
