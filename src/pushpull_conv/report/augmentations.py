"""The figure of the augmentations: what training images look like."""

from collections.abc import Mapping

from torch import Tensor

from pushpull_conv.report.pictures import bare, blank, paste
from pushpull_conv.report.style import Figure, canvas, in_style


@in_style
def augmentations_figure(photo: Tensor, draws: Mapping[str, Tensor]) -> Figure:
    """Draw one photo as each augmentation gives it (rows) time after time (columns), below the photo itself.

    Args:
        photo: uint8 ``[3, H, W]``.
        draws: Per title of an augmentation uint8 ``[N, 3, H, W]``, N the same for all.

    Returns:
        One figure.
    """
    height, width = photo.shape[1:]
    gap = max(1, width // 16)
    rows = {"photo": photo[None], **draws}
    columns = max(map(len, rows.values()))
    picture = blank(len(rows) * (height + gap) - gap, columns * (width + gap) - gap)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            paste(picture, image.permute(1, 2, 0).numpy(), row * (height + gap), column * (width + gap))
    figure = canvas(8.2, 7.2 * picture.shape[0] / picture.shape[1] + 0.1)
    figure.set_layout_engine("compressed")  # the plain one forgets the labels of a picture that keeps its shape
    axes = figure.subplots()
    axes.imshow(picture, interpolation="none")
    axes.set_yticks([(height + gap) * row + height / 2 for row in range(len(rows))], list(rows))
    axes.set_xticks([])
    bare(axes)
    caption = f"One photo and {columns} training images that each augmentation makes of it, drawn at random."
    return Figure("augmentations", "The augmentations", figure, caption, dpi=max(200, columns * width / 6.5))
