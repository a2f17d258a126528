"""Labelled images: where they come from, how they are held, and how they reach a network in batches."""

from pushpull_conv.data.batches import PADDING, EvaluationBatches, TrainingBatches, require_equal_parts
from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.places import epoch_order, stratified
from pushpull_conv.data.published import open_published
from pushpull_conv.data.sets import DATA_SETS, IN_MEMORY, load_images, open_images, require_outside
from pushpull_conv.data.source import Batch, ImageSource, identity_of, same_images
from pushpull_conv.data.stream import ImageStream
from pushpull_conv.data.training_loader import PictureBatches, Preparation, default_workers

__all__ = [
    "DATA_SETS",
    "IN_MEMORY",
    "PADDING",
    "Batch",
    "EvaluationBatches",
    "ImageSet",
    "ImageSource",
    "ImageStream",
    "PictureBatches",
    "Preparation",
    "TrainingBatches",
    "default_workers",
    "epoch_order",
    "identity_of",
    "load_images",
    "open_images",
    "open_published",
    "require_equal_parts",
    "require_outside",
    "same_images",
    "stratified",
]
