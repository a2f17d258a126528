"""The versions of a data set's images that a benchmark shows to a classifier."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pushpull_conv.benchmark.results import GENERATED
from pushpull_conv.benchmark.suites import Suite
from pushpull_conv.corruptions import recompress
from pushpull_conv.data import Batch, ImageSource, open_published
from pushpull_conv.files import CLEAN

PUBLISHED = "published"


class Versions(Protocol):
    """One version of all images for each (corruption, severity), and the clean images for `CLEAN`."""

    def facts(self) -> dict[str, Any]:
        """What `Header` records of their making: ``origin``, ``seed``, ``frost`` and ``jpeg_quality``."""

    def batches(self, key: tuple[str, int], batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Every image of one version once, ``batch_size`` at a time, on ``device``."""


@dataclasses.dataclass(frozen=True)
class Generated:
    """Versions that are made while they are used.

    Args:
        source: The clean images.
        make: Corrupts a batch: ``make(images, corruption, severity, index=...)``.
        seed: The seed that ``make`` uses.
        frost: Identity of the textures that ``make`` uses.
        jpeg_quality: Quality at which the corrupted images are stored as JPEG; None: as they are.
    """

    source: ImageSource
    make: Callable[..., Tensor]
    seed: int
    frost: str
    jpeg_quality: int | None

    def facts(self) -> dict[str, Any]:
        """See `Versions`."""
        fields = {"seed": self.seed, "frost": self.frost, "jpeg_quality": self.jpeg_quality}
        return {"origin": GENERATED, **fields}

    def batches(self, key: tuple[str, int], batch_size: int, device: torch.device) -> Iterator[Batch]:
        """See `Versions`."""
        for batch in _on(device, self.source.batches(batch_size)):
            if key == CLEAN:
                yield batch
                continue
            images = as_stored(self.make(batch.images, *key, index=batch.index), self.jpeg_quality)
            yield dataclasses.replace(batch, images=images)


def as_stored(images: Tensor, jpeg_quality: int | None) -> Tensor:
    """Corrupted images as a benchmark reads them back: through JPEG of a quality, or, at None, as they are."""
    return images if jpeg_quality is None else recompress(images, jpeg_quality)


class Published:
    """Versions that lie in a folder, as they were downloaded or written.

    Args:
        source: The clean images.
        folder: The published set.
        suite: Its suite.
        cells: The (corruption, severity) pairs that are wanted.

    Raises:
        InputError: See `pushpull_conv.data.open_published`.
    """

    def __init__(self, source: ImageSource, folder: Path, suite: Suite, cells: list[tuple[str, int]]) -> None:
        self.source = source
        self.published = open_published(folder, source, suite.layout, cells)

    def facts(self) -> dict[str, Any]:
        """See `Versions`."""
        manifest = self.published.manifest
        made = {name: manifest.get(name) for name in ("frost", "jpeg_quality")}  # of a set that `write_set` wrote
        return {"origin": f"{PUBLISHED} {self.published.identity}", "seed": None, **made}

    def batches(self, key: tuple[str, int], batch_size: int, device: torch.device) -> Iterator[Batch]:
        """See `Versions`."""
        yield from _on(
            device, self.source.batches(batch_size) if key == CLEAN else self.published.batches(*key, batch_size)
        )


def _on(device: torch.device, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.images.to(device), batch.labels.to(device), batch.index.to(device))
