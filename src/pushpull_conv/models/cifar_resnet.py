"""The residual networks for 32 x 32 images of He et al. 2016 (arXiv 1512.03385, section 4.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

CIFAR_DEPTHS = (20, 32, 44, 56)


class CifarResNet(nn.Module):
    """ResNet-20/32/44/56: a 3 x 3 stem and three stages of 16, 32 and 64 channels.

    Shortcuts have no parameters (option A of the paper): where a stage begins, the input is subsampled and padded with
    zero channels. Weights start as in He et al. 2015 (arXiv 1502.01852), normal with the variance of the fan-out.

    Args:
        depth: 20, 32, 44 or 56 (any ``6 n + 2``).
        num_classes: Number of logits.

    Example:
        >>> import torch
        >>> CifarResNet(20, num_classes=10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = _conv3x3(3, 16, stride=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class Subsample(nn.Module):
    """Keep every ``stride``-th pixel of ``[N, C, H, W]``: what the shortcut does where a stage begins."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the same with ``ceil(H / stride)`` rows and so many columns."""
        return x[:, :, :: self.stride, :: self.stride]


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels, stride=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.subsample = Subsample(stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.new_channels == 0:
            return x
        before = self.new_channels // 2
        return F.pad(self.subsample(x), (0, 0, 0, 0, before, self.new_channels - before))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(_Block(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
