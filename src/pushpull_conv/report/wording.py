"""How names and numbers read, the same in tables, figures and sentences."""

from pushpull_conv.benchmark import Header


def shortened(label: str, most: int) -> str:
    """Leave out the middle of a label of more than so many characters; both ends may tell it from others.

    Example:
        >>> shortened("resnet50-augmix-finetuned-lr0.01", 21), shortened("PP3", 21)
        ('resnet50-a…ned-lr0.01', 'PP3')
    """
    half = most // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"


def percent(fraction: float) -> str:
    """Write a fraction as a percentage with two decimals.

    Example:
        >>> percent(0.1234)
        '12.34 %'
    """
    return f"{100 * fraction:.2f} %"


def signed(value: float) -> str:
    """Write a difference with its sign, and with a true minus.

    Example:
        >>> signed(-1.5), signed(-0.001)
        ('−1.50', '0.00')
    """
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−")


def with_spread(text: str, sd: float | None) -> str:
    """Write a standard deviation, in the unit of the number before it, behind that number; None: there is none.

    Example:
        >>> with_spread("+4.25", 0.6), with_spread("+4.25", None)
        ('+4.25 ± 0.60', '+4.25')
    """
    return text if sd is None else f"{text} ± {sd:.2f}"


def duration(seconds: float) -> str:
    """Write a time in its two largest units.

    Example:
        >>> duration(42), duration(150), duration(7380)
        ('42 s', '2 min 30 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def images_of(header: Header) -> str:
    """Say what results were made from.

    Example:
        >>> images_of(Header("mine", "test", "ab12", 4000, ("a", "b"), "cifar10-c", 1, 0, "procedural-1", "0.1.0"))
        '4,000 test images of mine, suite cifar10-c (revision 1), images generated, seed 0, frost procedural-1'
    """
    return (
        f"{header.images:,} {header.split} images of {header.data}, suite {header.suite} (revision {header.revision}), "
        f"{making_of(header)}"
    )


def making_of(header: Header) -> str:
    """Say where the corrupted images come from.

    Example:
        >>> making_of(Header("mine", "test", "ab12", 4000, ("a", "b"), "cifar10-c", 1, 0, "procedural-1", "0.1.0"))
        'images generated, seed 0, frost procedural-1'
    """
    made = "" if header.seed is None else f", seed {header.seed}, frost {header.frost}"
    return f"images {header.origin}{made}"
