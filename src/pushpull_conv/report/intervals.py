"""95 % intervals: how far chance reaches, in an error on so many images and in a difference of so many trainings."""

import math
from statistics import NormalDist


def wilson_interval(error: float, images: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of an error measured on so many images (Wilson's; never empty).

    Example:
        >>> [round(end, 3) for end in wilson_interval(0.0, 355)]
        [0.0, 0.011]
    """
    z2 = NormalDist().inv_cdf(0.975) ** 2
    centre = error + z2 / (2 * images)
    half = math.sqrt(z2 * error * (1 - error) / images + (z2 / (2 * images)) ** 2)
    whole = 1 + z2 / images
    return max(0.0, centre - half) / whole, (centre + half) / whole


def welch_interval(difference: float, sds: tuple[float, float], counts: tuple[int, int]) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval of a difference of two means, by Welch's t: both spreads count.

    None where neither sample spreads: a few that are equal by chance say nothing of others.

    Args:
        difference: The one mean less the other.
        sds: The standard deviations of the two samples, each divided by its size less one.
        counts: The sizes of the two samples, at least 2 each.

    Example:
        >>> [round(end, 3) for end in welch_interval(1.0, (0.3, 0.4), (3, 3))]
        [0.173, 1.827]
    """
    shares = [sd**2 / count for sd, count in zip(sds, counts, strict=True)]
    if not sum(shares):
        return None
    freedom = sum(shares) ** 2 / sum(share**2 / (count - 1) for share, count in zip(shares, counts, strict=True))
    half = t_quantile(freedom) * math.sqrt(sum(shares))
    return difference - half, difference + half


def t_quantile(freedom: float) -> float:
    """Return what Student's t exceeds in size with a probability of 5 %, for so many degrees of freedom from 1 on.

    With t = sqrt(freedom) * tan(angle) the density is that of cos(angle) to the power of freedom - 1, which is smooth:
    Simpson's rule integrates it, and bisection finds the angle.

    Example:
        >>> round(t_quantile(2), 4)
        4.3027
    """
    half = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)) * math.sqrt(math.pi) / 2
    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _cosine_integral(middle, freedom - 1) < 0.95 * half else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _cosine_integral(angle: float, power: float, steps: int = 200) -> float:
    """Integrate cos(x) to the power from 0 to the angle by Simpson's rule."""
    values = [math.cos(angle * i / steps) ** power for i in range(steps + 1)]
    return angle / steps / 3 * (values[0] + values[-1] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2]))
