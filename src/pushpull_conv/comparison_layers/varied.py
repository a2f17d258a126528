"""The push-pull unit with its choices opened, to look for a better one."""

import functools
from collections.abc import Sequence
from numbers import Number
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushpull_conv.comparison_layers.blur import blur, check_blur, fill_binomial, require_square_stride
from pushpull_conv.comparison_layers.inhibition import InhibitedConv2d
from pushpull_conv.comparison_layers.replacement import register_filter
from pushpull_conv.errors import InputError, is_finite, require_name
from pushpull_conv.functional import autocast_off, check_avg_kernel_size, window_sum
from pushpull_conv.kernels.composed import box_sum, window_share

PULL_CONSTANTS = ("filter", "channel")


class VariedPushPullConv2d(InhibitedConv2d):
    r"""`pushpull_conv.PushPullConv2d` in more general form.

    .. math::
        push &= x * W \qquad pull = x * (m - W) \qquad pull'_o = \sum_k \pi_{ok} \, \mathrm{avg}_k(pull_o) \\
        y_o &= \mathrm{relu}(push_o) - \alpha_o \, \mathrm{relu}(pull'_o) + b_o

    Four things differ from the unit of arXiv 2408.04077, and none of them at the defaults:

    - *The pull constant* :math:`m`, the smallest plus the largest weight, is one number per filter or one per filter
      and input channel. Per channel, a pull kernel has the range of values of its push kernel in every channel.
    - *The scale of the average* is one size, or a mixture of several with learned shares :math:`\pi_o`, a softmax per
      filter that starts at equal shares.
    - *A learned alpha* is free, or ``alpha_limit * sigmoid`` of a free number, so that it inhibits and never excites.
    - *A blur*: the convolutions run at stride 1, and their responses, push and pull, are blurred with a binomial filter
      and subsampled before anything else, as `BlurredConv2d` does it.

    Args:
        *args: As in `torch.nn.Conv2d`.
        avg_kernel_sizes: Sides of the windows over which the pull response is averaged, odd; 1 for none.
        pull_constant: ``"filter"`` or ``"channel"``.
        alpha: Strength of the inhibition. With ``trainable_alpha`` it has no effect.
        trainable_alpha: Learn ``alpha`` per filter, starting from U(0, 1); within a limit that is before the sigmoid.
        alpha_limit: Upper limit of a learned alpha, whose lower limit is then 0; None for a free one.
        blur_kernel_size: Side of the binomial filter, 2 to 7; None for no blur.
        **kwargs: As in `torch.nn.Conv2d`; with a blur the stride must be the same along both axes.

    Raises:
        InputError: ``avg_kernel_sizes`` is a number, is empty or has an even or negative size, ``pull_constant`` is
            unknown, ``alpha`` is not finite, ``alpha_limit`` is no positive number or goes with an alpha that is not
            learned, or ``blur_kernel_size`` or the stride is out of range.

    Example:
        >>> layer = VariedPushPullConv2d(3, 16, 3, padding=1, avg_kernel_sizes=(1, 3, 5), pull_constant="channel")
        >>> layer(torch.rand(1, 3, 32, 32)).shape, layer.pooling.shape
        (torch.Size([1, 16, 32, 32]), torch.Size([16, 3]))
    """

    pooling: Tensor
    filter: Tensor

    def __init__(
        self,
        *args: Any,
        avg_kernel_sizes: Sequence[int] = (5,),
        pull_constant: str = "filter",
        alpha_limit: float | None = None,
        blur_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(avg_kernel_sizes, Number):
            raise InputError(
                f"avg_kernel_sizes is {avg_kernel_sizes}; give several as a list, one as [{avg_kernel_sizes}]"
            )
        if not avg_kernel_sizes:
            raise InputError("avg_kernel_sizes is empty; give one or more odd sizes, (1,) for no average")
        for size in avg_kernel_sizes:
            check_avg_kernel_size(size)
        require_name("pull_constant", pull_constant, PULL_CONSTANTS)
        if alpha_limit is not None and not (
            is_finite(alpha_limit) and alpha_limit > 0 and kwargs.get("trainable_alpha")
        ):
            raise InputError(
                f"alpha_limit is {alpha_limit!r}; it limits a learned alpha: set trainable_alpha, and above 0"
            )
        self.avg_kernel_sizes, self.pull_constant = tuple(avg_kernel_sizes), pull_constant
        if blur_kernel_size is not None:
            check_blur(blur_kernel_size)
        self.alpha_limit, self.blur_kernel_size = alpha_limit, blur_kernel_size
        super().__init__(*args, **kwargs)
        if blur_kernel_size is not None:
            require_square_stride(self.stride)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the inhibited response, of the shape that the plain convolution gives."""
        padded = self._padded(input)
        push = self._blurred(F.conv2d(padded, self.weight, None, self._conv_stride, 0, self.dilation, self.groups))
        wide = torch.promote_types(push.dtype, torch.float32)
        with autocast_off(input):
            pull = self._pull(padded.to(wide), push.to(wide))
            response = push.to(wide).relu() - self._strength(pull) * self._averaged(pull).relu()
            if self.bias is not None:
                response = response + self.bias.to(wide).view(-1, 1, 1)
        return response.to(push.dtype)

    def pull_kernel(self) -> Tensor:
        """Return the pull kernels, of the shape of ``weight``."""
        return self._constants() - self.weight

    def extra_repr(self) -> str:
        """Describe the convolution, alpha, the averages, the pull constant and the blur."""
        limit = "" if self.alpha_limit is None else f", alpha_limit={self.alpha_limit:g}"
        side = "" if self.blur_kernel_size is None else f", blur_kernel_size={self.blur_kernel_size}"
        sizes = ", ".join(map(str, self.avg_kernel_sizes))
        return f"{super().extra_repr()}{limit}, avg_kernel_sizes=({sizes}), pull_constant={self.pull_constant}{side}"

    def _constants(self) -> Tensor:
        """Return m: ``[O, 1, 1, 1]`` or ``[O, C / groups, 1, 1]``."""
        axes = (1, 2, 3) if self.pull_constant == "filter" else (2, 3)
        return self.weight.amin(axes, keepdim=True) + self.weight.amax(axes, keepdim=True)

    def _pull(self, padded: Tensor, push: Tensor) -> Tensor:
        """Return ``x * (m - W)`` from the sums of each channel under the kernel, without a second full convolution."""
        batch = padded if padded.dim() == 4 else padded.unsqueeze(0)
        sums = window_sum(batch, self.weight, self._conv_stride, 0, self.dilation, self.in_channels, padded.dtype)
        sums = self._blurred(sums)
        constants = self._constants().to(sums.dtype).expand(-1, self.in_channels // self.groups, 1, 1).flatten(1)
        grouped = sums.unflatten(1, (self.groups, -1)), constants.unflatten(0, (self.groups, -1))
        both = torch.einsum("ngchw,goc->ngohw", *grouped)  # push and pull; no TF32, as in window_sum
        return both.flatten(1, 2).view_as(push) - push

    @property
    def _conv_stride(self) -> tuple[int, ...]:
        return self.stride if self.blur_kernel_size is None else (1, 1)

    def _blurred(self, response: Tensor) -> Tensor:
        return response if self.blur_kernel_size is None else blur(response, self.filter, self.stride[0])

    def _averaged(self, pull: Tensor) -> Tensor:
        batch = pull if pull.dim() == 4 else pull.unsqueeze(0)
        sizes = self.avg_kernel_sizes
        means = [window_share(batch, size) * box_sum(batch, size, self.out_channels) for size in sizes]
        if len(means) > 1:
            shares = self.pooling.to(batch.dtype).softmax(1).unflatten(0, (-1, 1, 1))
            means = [shares[..., place] * mean for place, mean in enumerate(means)]
        return functools.reduce(torch.add, means).view_as(pull)

    def _strength(self, response: Tensor) -> Tensor:
        strength = super()._strength(response)
        return strength if self.alpha_limit is None else self.alpha_limit * strength.sigmoid()

    def _create_tensors(self, like: Tensor) -> None:
        super()._create_tensors(like)
        if len(self.avg_kernel_sizes) > 1:
            sizes = self.out_channels, len(self.avg_kernel_sizes)
            self.pooling = nn.Parameter(torch.empty(sizes, device=like.device, dtype=like.dtype))
        if self.blur_kernel_size is not None:
            register_filter(self, "filter", self.blur_kernel_size, like)

    @torch.no_grad()
    def _reset_tensors(self) -> None:
        super()._reset_tensors()
        if len(self.avg_kernel_sizes) > 1:
            self.pooling.zero_()
        if self.blur_kernel_size is not None:
            fill_binomial(self.filter)
