"""`PushPullConv2d`, the push-pull unit as a drop-in `torch.nn.Conv2d`."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pushpull_conv.errors import InputError
from pushpull_conv.functional import PaddingMode, check_avg_kernel_size, push_pull_conv2d

torch.fx.wrap("push_pull_conv2d")  # one node of a symbolic trace, as a convolution is

_GEOMETRY = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
)  # fmt: skip

_IntOrPair = int | tuple[int, int]


def is_plain_conv(module: nn.Module) -> bool:
    """Tell whether ``module`` is a `torch.nn.Conv2d`, and no other kind, which may compute something else."""
    return type(module) is nn.Conv2d


def geometry_of(conv: nn.Conv2d, accepts: Callable[[nn.Module], bool] = is_plain_conv) -> dict[str, Any]:
    """Return the arguments of `torch.nn.Conv2d` that say what ``conv`` computes with its parameters.

    Raises:
        InputError: It may compute something else, or with a weight that is no parameter of its own.
    """
    if not accepts(conv):
        raise InputError(f"conv is a {type(conv).__name__}; allowed: a plain torch.nn.Conv2d")
    if not isinstance(conv.weight, nn.Parameter):
        raise InputError("conv's weight is no parameter but made from others; remove its pruning or norm first")
    return {name: getattr(conv, name) for name in _GEOMETRY}


class PushPullConv2d(nn.Conv2d):
    """A convolution whose response is inhibited by that of the complementary kernel.

    Takes the place of `torch.nn.Conv2d`: same shapes, same ``weight`` and ``bias``, and ``alpha`` ``[O]`` besides. It
    does not keep the function: even at ``alpha = 0`` the unit is ``relu(conv) + bias``, so a network wants training
    after a swap. See `pushpull_conv.functional.push_pull_conv2d` for the mathematics (arXiv 2408.04077).

    State dicts that the authors' research code wrote (``push_conv.weight``, ``pull_inhibition_strength``, ``bias``)
    load as they are. Theirs of a unit with a fixed strength lack it: there ``alpha`` stays what it is.

    Args:
        in_channels: As in `torch.nn.Conv2d`.
        out_channels: As in `torch.nn.Conv2d`.
        kernel_size: As in `torch.nn.Conv2d`.
        stride: As in `torch.nn.Conv2d`.
        padding: As in `torch.nn.Conv2d`.
        dilation: As in `torch.nn.Conv2d`.
        groups: As in `torch.nn.Conv2d`.
        bias: As in `torch.nn.Conv2d`; added after the inhibition.
        padding_mode: As in `torch.nn.Conv2d`.
        avg_kernel_size: Side of the window over which the pull response is averaged, odd; 0 or 1 for none.
        alpha: Strength of the inhibition, one number or one per filter. With ``trainable_alpha`` it has no effect.
        trainable_alpha: Learn ``alpha`` per filter, starting from U(0, 1). Otherwise ``alpha`` is a buffer.
        device: As in `torch.nn.Conv2d`.
        dtype: As in `torch.nn.Conv2d`.

    Raises:
        InputError: ``avg_kernel_size`` is even or negative, or ``alpha`` is not finite or not one number per filter.

    Example:
        >>> unit = PushPullConv2d(3, 64, 7, stride=2, padding=3, bias=False, alpha=0.5)
        >>> unit(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 64, 112, 112])
        >>> list(unit.state_dict())
        ['weight', 'alpha']
    """

    alpha: Tensor

    @staticmethod
    def accepts(module: nn.Module) -> bool:
        """Tell whether `from_conv2d` takes ``module``, because the unit computes all that it does."""
        return is_plain_conv(module)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _IntOrPair,
        stride: _IntOrPair = 1,
        padding: _IntOrPair | str = 0,
        dilation: _IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        avg_kernel_size: int = 3,
        alpha: float | Sequence[float] | Tensor = 1.0,
        trainable_alpha: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_avg_kernel_size(avg_kernel_size)
        given_alpha = _alpha_values(alpha, out_channels)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.avg_kernel_size = avg_kernel_size
        self._given_alpha = given_alpha
        self._create_alpha(trainable_alpha, self.weight)

    @classmethod
    def from_conv2d(
        cls,
        conv: nn.Conv2d,
        *,
        avg_kernel_size: int = 3,
        alpha: float | Sequence[float] | Tensor = 1.0,
        trainable_alpha: bool = False,
    ) -> Self:
        """Build the unit around the parameters of an existing convolution.

        ``weight`` and ``bias`` are the very parameters of ``conv``, so an optimizer that holds them goes on working.

        Raises:
            InputError: ``conv`` is no plain `torch.nn.Conv2d` and may compute something else.

        Example:
            >>> conv = nn.Conv2d(3, 8, 3, padding="same")
            >>> PushPullConv2d.from_conv2d(conv, avg_kernel_size=5).weight is conv.weight
            True
        """
        unit = cls(
            **geometry_of(conv, cls.accepts),
            bias=conv.bias is not None,
            avg_kernel_size=avg_kernel_size,
            alpha=alpha,
            trainable_alpha=trainable_alpha,
            device="meta",
        )
        unit.weight, unit.bias = conv.weight, conv.bias
        unit._create_alpha(trainable_alpha, conv.weight)
        return unit.train(conv.training)

    @property
    def trainable_alpha(self) -> bool:
        """Whether ``alpha`` is learned."""
        return isinstance(self.alpha, nn.Parameter)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` or ``[C, H, W]`` to the response that `push_pull_conv2d` defines."""
        return push_pull_conv2d(
            input,
            self.push_kernel(),
            self.bias,
            self.alpha,
            avg_kernel_size=self.avg_kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )

    def push_kernel(self) -> Tensor:
        """Return the kernels ``[O, C / groups, kh, kw]`` of the convolution, here ``weight`` itself."""
        return self.weight

    def reset_parameters(self) -> None:
        """Draw the weights afresh, as in `torch.nn.Conv2d`, and set ``alpha`` as at construction."""
        super().reset_parameters()
        if hasattr(self, "alpha"):  # nn.Conv2d calls this before alpha exists
            self._reset_alpha()

    def extra_repr(self) -> str:
        """Describe the convolution, the averaging and alpha."""
        return f"{super().extra_repr()}, avg_kernel_size={self.avg_kernel_size}, alpha={describe_alpha(self.alpha)}"

    def _create_alpha(self, trainable: bool, like: Tensor) -> None:
        register_alpha(self, trainable, like)
        self._reset_alpha()

    @torch.no_grad()
    def _reset_alpha(self) -> None:
        if self.trainable_alpha:
            self.alpha.uniform_(0, 1)
        else:
            self.alpha.copy_(self.alpha.new_tensor(self._given_alpha))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}push_conv.weight" in state_dict:
            self._rename_research_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _rename_research_keys(self, state_dict: dict[str, Any], prefix: str) -> None:
        state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}push_conv.weight")
        if f"{prefix}pull_inhibition_strength" in state_dict:
            strength = torch.as_tensor(state_dict.pop(f"{prefix}pull_inhibition_strength")).flatten()
            state_dict[f"{prefix}alpha"] = strength.repeat(self.out_channels) if len(strength) == 1 else strength
        elif not self.trainable_alpha:  # a fixed strength is a plain number there, which no state dict holds
            state_dict.setdefault(f"{prefix}alpha", self.alpha.detach())


def register_alpha(conv: nn.Conv2d, trainable: bool, like: Tensor) -> None:
    """Give ``conv`` an ``alpha`` ``[O]`` without values, with the device and dtype of ``like``; learned or a buffer."""
    alpha = torch.empty(conv.out_channels, device=like.device, dtype=like.dtype)
    if trainable:
        conv.alpha = nn.Parameter(alpha)
    else:
        conv.register_buffer("alpha", alpha)


def describe_alpha(alpha: Tensor) -> str:
    """Return a strength of inhibition ``[O]`` in a word: a number, a range, or that it is learned or not there yet."""
    if isinstance(alpha, nn.Parameter):
        return "trainable"
    if alpha.is_meta:
        return "meta"
    low, high = (value.item() for value in alpha.aminmax())
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _alpha_values(alpha: float | Sequence[float] | Tensor, filters: int) -> list[float]:
    """Return one finite number per filter."""
    try:
        values = torch.as_tensor(alpha, dtype=torch.float64, device="cpu")  # also under a default device such as meta
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"alpha is {alpha!r}; allowed: a number, or {filters} of them, one per filter") from error
    if values.shape not in {(), (filters,)}:
        raise InputError(f"alpha has shape {list(values.shape)}; allowed: a number or [{filters}], one per filter")
    if not values.isfinite().all():
        raise InputError(f"alpha is {values.tolist()}; allowed: any finite number; 1.0 is the paper's choice")
    return [float(value) for value in values.expand(filters)]
