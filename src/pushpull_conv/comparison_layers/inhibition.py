"""Layers whose response is inhibited by another: the earlier push-pull layer, and surround suppression."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pushpull_conv.comparison_layers.replacement import ReplacementConv2d, register_filter
from pushpull_conv.errors import InputError, is_finite
from pushpull_conv.functional import check_alpha
from pushpull_conv.layers import describe_alpha, register_alpha

_SURROUND_RATIO = 4
"""Deviation of the surround's outer Gaussian over that of the inner one, as Grigorescu et al. chose it."""


class InhibitedConv2d(ReplacementConv2d):
    """A convolution with a strength of inhibition ``alpha`` per filter, fixed (a buffer) or learned."""

    alpha: Tensor

    def __init__(self, *args: Any, alpha: float = 1.0, trainable_alpha: bool = False, **kwargs: Any) -> None:
        check_alpha(alpha)
        self._given_alpha, self.trainable_alpha = alpha, trainable_alpha
        super().__init__(*args, **kwargs)

    def strength(self) -> Tensor:
        """Return what each filter's inhibition is multiplied by, ``[O]``: alpha within the layer's bounds."""
        return self._strength(self.alpha).flatten()

    def extra_repr(self) -> str:
        """Describe the convolution and alpha."""
        return f"{super().extra_repr()}, alpha={describe_alpha(self.alpha)}"

    def _create_tensors(self, like: Tensor) -> None:
        register_alpha(self, self.trainable_alpha, like)

    @torch.no_grad()
    def _reset_tensors(self) -> None:
        if self.trainable_alpha:
            self.alpha.uniform_(*self._bounds_of_first_alpha())
        else:
            self.alpha.fill_(self._given_alpha)

    def _bounds_of_first_alpha(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _strength(self, response: Tensor) -> Tensor:
        """Return alpha as it multiplies ``response``."""
        return self.alpha.to(response.dtype).view(-1, 1, 1)


class UpsampledPullConv2d(InhibitedConv2d):
    r"""The push-pull layer of 2020: the pull kernel is the negated push kernel, enlarged.

    .. math::
        y_o = \mathrm{relu}(x * W_o + b_o) - \alpha_o \, \mathrm{relu}(-(x * W_o^{\uparrow h} + b_o))

    Source: Strisciuglio, Lopez-Antequera, Petkov, "Enhanced robustness of convolutional networks with a push-pull
    inhibition layer", Neural Computing and Applications 2020, arXiv 1901.10208. The enlargement is bilinear, corner
    on corner; the pull kernel's side is ``scale`` times that of the push kernel rounded down, plus one where that
    would set its middle between pixels. As in the authors' published code the bias is inside both rectifications, and
    a learned alpha starts from U(1/2 - r, 1/2 + r), r = (C O)^(-1/2), and acts through a relu, so that it never
    excites.

    `pushpull_conv.PushPullConv2d` differs in the pull kernel, ``min + max - W`` of the same size, and averages the pull
    response. This layer costs two convolutions, the second with a kernel of more than four times the weights.

    Args:
        *args: As in `torch.nn.Conv2d`.
        scale: Side of the pull kernel over that of the push kernel, 1 to 2.
        alpha: Strength of the inhibition. With ``trainable_alpha`` it has no effect.
        trainable_alpha: Learn ``alpha`` per filter.
        **kwargs: As in `torch.nn.Conv2d`.

    Raises:
        InputError: ``scale`` is outside 1 to 2, or ``alpha`` is not finite.

    Example:
        >>> layer = UpsampledPullConv2d(3, 64, 7, stride=2, padding=3, bias=False)
        >>> layer(torch.rand(1, 3, 64, 64)).shape, layer.pull_kernel().shape
        (torch.Size([1, 64, 32, 32]), torch.Size([64, 3, 15, 15]))
    """

    def __init__(self, *args: Any, scale: float = 2.0, **kwargs: Any) -> None:
        if not (is_finite(scale) and 1 <= scale <= 2):
            raise InputError(f"scale is {scale!r}; allowed: 1 to 2; 2 is the paper's choice")
        self.scale = scale
        super().__init__(*args, **kwargs)

    def pull_kernel(self) -> Tensor:
        """Return the pull kernels ``[O, C / groups, kh', kw']``."""
        height, width = (_enlarged(side, self.scale) for side in self.kernel_size)
        return -F.interpolate(self.weight, (height, width), mode="bilinear", align_corners=True)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the inhibited response, of the shape that the plain convolution gives."""
        rows, columns = (
            dilation * (_enlarged(side, self.scale) - side) // 2
            for dilation, side in zip(self.dilation, self.kernel_size, strict=True)
        )
        push = self._convolve(self._padded(input), self.weight, self.bias)
        bias = None if self.bias is None else -self.bias
        pull = self._convolve(self._padded(input, (rows, columns)), self.pull_kernel(), bias)
        return push.relu() - self._strength(pull) * pull.relu()

    def extra_repr(self) -> str:
        """Describe the convolution, alpha and the enlargement."""
        rectified = ", alpha rectified" if self.trainable_alpha else ""
        return f"{super().extra_repr()}{rectified}, scale={self.scale:g}"

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    def _strength(self, response: Tensor) -> Tensor:
        strength = super()._strength(response)
        return strength.relu() if self.trainable_alpha else strength

    def _bounds_of_first_alpha(self) -> tuple[float, float]:
        spread = (self.in_channels * self.out_channels) ** -0.5
        return 0.5 - spread, 0.5 + spread


class SurroundSuppressedConv2d(InhibitedConv2d):
    r"""A convolution whose response is inhibited by the same filter's responses around it.

    .. math::
        push_o &= \mathrm{relu}(x * W_o) \qquad y_o = \mathrm{relu}(push_o - \alpha_o \, w_\sigma * push_o) + b_o \\
        w_\sigma &= \frac{\mathrm{relu}(DoG_\sigma)}{\lVert \mathrm{relu}(DoG_\sigma) \rVert_1} \qquad
        DoG_\sigma = G_{4 \sigma} - G_\sigma

    with :math:`G_\sigma` the Gaussian of deviation :math:`\sigma` and integral 1. The weights are a ring: zero at the
    centre, where the inner Gaussian is larger. A filter that answers everywhere, as to texture or noise, is
    suppressed; one that answers along a line or at a point is not.

    Source: Grigorescu, Petkov, Westenberg, "Contour detection based on nonclassical receptive field inhibition", IEEE
    Transactions on Image Processing 12(7), 2003, and Petkov, Westenberg, "Suppression of contour perception by
    band-limited noise and its relation to nonclassical receptive field inhibition", Biological Cybernetics 88, 2003.
    There the responses are Gabor energies; here they are those of learned filters, each inhibited by itself alone
    (their anisotropic inhibition). The bias is added last, as in `pushpull_conv.PushPullConv2d`.

    Args:
        *args: As in `torch.nn.Conv2d`.
        sigma: Deviation of the inner Gaussian in pixels of the response map, above 0 to 4. The ring reaches out to 12
            sigma, rounded up; beyond the map there is no response.
        alpha: Strength of the inhibition. With ``trainable_alpha`` it has no effect.
        trainable_alpha: Learn ``alpha`` per filter, starting from U(0, 1).
        **kwargs: As in `torch.nn.Conv2d`.

    Raises:
        InputError: ``sigma`` is out of range, or ``alpha`` is not finite.

    Example:
        >>> layer = SurroundSuppressedConv2d(3, 16, 3, padding=1, sigma=0.5)
        >>> layer(torch.rand(1, 3, 32, 32)).shape, layer.surround.shape
        (torch.Size([1, 16, 32, 32]), torch.Size([1, 1, 13, 13]))
    """

    surround: Tensor

    def __init__(self, *args: Any, sigma: float = 0.5, **kwargs: Any) -> None:
        if not (is_finite(sigma) and 0 < sigma <= 4):
            raise InputError(f"sigma is {sigma!r}; allowed: above 0 to 4 pixels; 0.5 suits small images")
        self.sigma = sigma
        super().__init__(*args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the suppressed response, of the shape that the plain convolution gives."""
        push = F.conv2d(self._padded(input), self.weight, None, self.stride, 0, self.dilation, self.groups).relu()
        filters, side = self.out_channels, self.surround.shape[-1]
        ring = self.surround.to(push.dtype).expand(filters, 1, side, side)
        suppression = F.conv2d(push, ring, padding=side // 2, groups=filters)
        response = (push - self._strength(push) * suppression).relu()
        return response if self.bias is None else response + self.bias.to(push.dtype).view(-1, 1, 1)

    def extra_repr(self) -> str:
        """Describe the convolution, alpha and the surround."""
        return f"{super().extra_repr()}, sigma={self.sigma:g}"

    def _create_tensors(self, like: Tensor) -> None:
        super()._create_tensors(like)
        register_filter(self, "surround", 2 * _reach(self.sigma) + 1, like)

    @torch.no_grad()
    def _reset_tensors(self) -> None:
        super()._reset_tensors()
        self.surround.copy_(torch.tensor(_ring(self.sigma), dtype=torch.float64, device="cpu"))


def _enlarged(side: int, scale: float) -> int:
    """Return the enlarged side, one more where its middle would not lie on that of the push kernel."""
    enlarged = math.floor(side * scale)
    return enlarged + (enlarged - side) % 2


def _reach(sigma: float) -> int:
    """Return how many pixels the ring reaches from its centre: three deviations of the outer Gaussian."""
    return math.ceil(3 * _SURROUND_RATIO * sigma)


def _ring(sigma: float) -> list[list[float]]:
    """Return the positive part of the difference of Gaussians, of sum 1."""
    outer, reach = _SURROUND_RATIO * sigma, _reach(sigma)
    places = range(-reach, reach + 1)
    values = [[max(_gaussian(y, x, outer) - _gaussian(y, x, sigma), 0.0) for x in places] for y in places]
    total = sum(map(sum, values))
    return [[value / total for value in row] for row in values]


def _gaussian(y: int, x: int, sigma: float) -> float:
    return math.exp(-(y * y + x * x) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
