"""`ReplacementConv2d`: what all layers share that take the place of a convolution."""

import functools
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushpull_conv.errors import InputError
from pushpull_conv.functional import borders_of
from pushpull_conv.layers import geometry_of


class ReplacementConv2d(nn.Conv2d):
    """A convolution that does more, built afresh or around the parameters of a plain one.

    A subclass takes its own settings by keyword, keeps them as attributes and then calls ``super().__init__`` with the
    arguments of `torch.nn.Conv2d`. Its further tensors it makes in `_create_tensors` and fills in `_reset_tensors`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._complete = False
        super().__init__(*args, **kwargs)
        self._complete_like(self.weight)

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, *, stride: int | tuple[int, ...] | None = None, **settings: Any) -> Self:
        """Build the layer around the parameters of an existing convolution.

        Args:
            conv: Its ``weight`` and ``bias`` become those of the layer, so an optimizer that holds them goes on
                working.
            stride: Of the layer; None for that of ``conv``. All else of `torch.nn.Conv2d` is as in ``conv``.
            **settings: The layer's own arguments.

        Raises:
            InputError: ``conv`` is no plain `torch.nn.Conv2d` and may compute something else, or a setting is wrong or
                that of ``conv``.

        Example:
            >>> from pushpull_conv.comparison_layers import BlurredConv2d
            >>> conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            >>> BlurredConv2d.from_conv2d(conv).weight is conv.weight
            True
        """
        given = geometry_of(conv) | {"bias": conv.bias is not None, "device": "meta"}  # draws no random numbers
        for name in ("dtype", *given):
            if name in settings:
                raise InputError(f"{name} is {settings[name]!r}, but the layer has that of conv; leave it out")
        if stride is not None:
            given["stride"] = stride
        layer = cls(**given, **settings)
        layer.weight, layer.bias = conv.weight, conv.bias
        layer._complete_like(conv.weight)
        return layer.train(conv.training)

    def reset_parameters(self) -> None:
        """Draw the weights afresh, as in `torch.nn.Conv2d`, and set everything else as at construction."""
        super().reset_parameters()
        if self._complete:  # nn.Conv2d calls this in its own __init__
            self._reset_tensors()

    def _complete_like(self, weight: Tensor) -> None:
        self._create_tensors(weight)
        self._complete = True
        self._reset_tensors()

    def _create_tensors(self, like: Tensor) -> None:
        """Register buffers and parameters besides weight and bias, with the device and dtype of ``like``."""

    def _reset_tensors(self) -> None:
        """Fill what `_create_tensors` registered."""

    def _padded(self, x: Tensor, more: tuple[int, int] = (0, 0)) -> Tensor:
        """Pad as the convolution says, and by ``more`` rows above and below and columns left and right."""
        left, right, top, bottom = borders_of(self.weight, self.padding, self.dilation)
        rows, columns = more
        borders = [left + columns, right + columns, top + rows, bottom + rows]
        return F.pad(x, borders, "constant" if self.padding_mode == "zeros" else self.padding_mode)


def register_filter(module: nn.Module, name: str, side: int, like: Tensor) -> None:
    """Give ``module`` a buffer ``[1, 1, side, side]`` of values that follow from its settings.

    It is in the state dict, so that weights which learned with the filter do not fit a network without it, nor one of
    other settings. A state dict without it, as of the plain convolution, fits as well.
    """
    module.register_buffer(name, torch.empty(1, 1, side, side, device=like.device, dtype=like.dtype))
    module.register_load_state_dict_pre_hook(functools.partial(_keep_filter, name))


def _keep_filter(name: str, module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Keep the filter that follows from the settings where the state dict has none, and refuse another."""
    own, errors = getattr(module, name), rest[-1]
    given = state_dict.setdefault(prefix + name, own)
    if given.shape != own.shape or given.is_meta or own.is_meta:  # PyTorch refuses other shapes
        return
    if not torch.allclose(given.to(own), own, rtol=5e-3, atol=1e-7):  # so far half precision may be away
        state_dict[prefix + name] = own  # PyTorch copies first and raises then
        errors.append(
            f"'{prefix}{name}' belongs to other settings than those of {type(module).__name__}({module.extra_repr()}); "
            "give the layer the settings that the weights learned with"
        )
