"""Labelled images: where they come from, how they are held, and how they reach a network in batches."""

from pushpull_conv.data.batches import EvaluationBatches, TrainingBatches
from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.sets import DATA_SETS, load_images

__all__ = ["DATA_SETS", "EvaluationBatches", "ImageSet", "TrainingBatches", "load_images"]
