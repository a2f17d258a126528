"""Train a push-pull stem for a minute on the handwritten digits, then draw what it does to one of them.

python examples/explain_unit.py [explained.png]
"""

import sys
from pathlib import Path

import torch
from torch import nn

from pushpull_conv import PushPullConv2d
from pushpull_conv.data import load_images
from pushpull_conv.report import write_explanation


def main(out: Path, steps: int = 300) -> None:
    """Train, print what was learned, and write the figure."""
    torch.manual_seed(0)
    digits = load_images("digits", "train")
    unit = PushPullConv2d(3, 16, 5, padding=2, avg_kernel_size=3, trainable_alpha=True)
    network = nn.Sequential(unit, nn.BatchNorm2d(16), nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(digits), (64,))
        loss = nn.functional.cross_entropy(network(normalised(digits.images[batch])), digits.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.3f}, alpha from {unit.alpha.min():.2f} to {unit.alpha.max():.2f}")
    photo = digits.images[0]
    print(write_explanation(out, unit, photo, normalised(photo[None])))


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Bring uint8 images to [-1, 1]."""
    return images / 127.5 - 1


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "explained.png"))
