"""The reference vectors, and the random draws behind them."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, load_frost, spec
from pushpull_conv.corruptions.frost import resize
from pushpull_conv.corruptions.kernel import Draws

NAMES = CORRUPTIONS + EXTRA_CORRUPTIONS


@dataclass(frozen=True)
class Vectors:
    """The clean images of one profile, ``[n, 3, H, W]``, the corrupted ones, ``[5, n, 3, H, W]``, and their seeds."""

    profile: str
    clean: Tensor
    corrupted: dict[str, Tensor]
    seeds: dict[str, list[int]]

    def draws(self, name: str, severity: int) -> Draws:
        """The draws of the reference, as the applying step of a corruption takes them."""
        state = np.random.RandomState(self.seeds[name][severity - 1])
        parameters = spec.parameters(name, self.profile, severity)
        side = self.clean.shape[-1]
        images = [_DRAW[name](state, image, parameters, side) for image in self.clean] if name in _DRAW else []
        return tuple(torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*images, strict=True))


def _normal(state, image, parameters, side):
    return (state.standard_normal((side, side, 3)).transpose(2, 0, 1),)


def _poisson(state, image, parameters, side):
    return (
        state.poisson(image.permute(1, 2, 0).numpy() / 255.0 * parameters[0]).astype(np.float64).transpose(2, 0, 1),
    )


def _impulse(state, image, parameters, side):
    return tuple(state.random_sample((side, side, 3)).transpose(2, 0, 1) for _ in range(2))


def _glass(state, image, parameters, side):
    _, reach, passes = (int(value) for value in parameters)
    return (state.randint(-reach, reach, (passes, side - 2 * reach, side - 2 * reach, 2)),)


def _motion(state, image, parameters, side):
    return (state.uniform(-45, 45),)


def _snow(state, image, parameters, side):
    return state.standard_normal((side, side)), state.uniform(-135, -45)


@functools.cache
def _scaled_photographs(scale):
    return [resize(photograph, scale) for photograph in load_frost("reference").photographs]


def _frost(state, image, parameters, side):
    scaled = _scaled_photographs(parameters[2])[state.randint(5)]
    top = state.randint(0, scaled.shape[1] - side)
    left = state.randint(0, scaled.shape[2] - side)
    return (scaled[:, top : top + side, left : left + side],)


def _fog(state, image, parameters, side):
    octaves = {32: 5, 64: 6, 224: 8}[side]
    return tuple(state.random_sample((3, 2**octave, 2**octave)) for octave in range(octaves))


def _elastic(state, image, parameters, side):
    return state.random_sample((3, 2)), state.random_sample((2, side, side))


def _plane(state, image, parameters, side):
    return (state.standard_normal((side, side)),)


_DRAW = {
    "gaussian_noise": _normal,
    "shot_noise": _poisson,
    "impulse_noise": _impulse,
    "glass_blur": _glass,
    "motion_blur": _motion,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "elastic_transform": _elastic,
    "speckle_noise": _normal,
    "spatter": _plane,
}
_SETS = {"cifar": "cifar32", "tiny-imagenet": "tiny64", "imagenet": "imagenet224"}


def load_vectors(folder: Path, profile: str) -> Vectors:
    """Read the vectors of a profile."""
    stem = _SETS[profile]
    with np.load(folder / f"{stem}.npz") as arrays:
        images = {name: torch.from_numpy(np.moveaxis(arrays[name], -1, -3).copy()) for name in ("clean", *NAMES)}
    seeds = json.loads((folder / "draws.json").read_text())["sets"][stem]["seed"]
    return Vectors(profile, images.pop("clean"), images, seeds)
