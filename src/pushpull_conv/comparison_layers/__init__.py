"""The layers that the push-pull unit is compared with, each written afresh from its paper, and variations of the unit.

`docs/layers.md` has the formulas side by side, and says how each was checked.
"""

from pushpull_conv.comparison_layers.blur import BlurPool2d, BlurPoolConv2d, BlurredConv2d
from pushpull_conv.comparison_layers.inhibition import SurroundSuppressedConv2d, UpsampledPullConv2d
from pushpull_conv.comparison_layers.varied import VariedPushPullConv2d

__all__ = [
    "BlurPool2d",
    "BlurPoolConv2d",
    "BlurredConv2d",
    "SurroundSuppressedConv2d",
    "UpsampledPullConv2d",
    "VariedPushPullConv2d",
]
