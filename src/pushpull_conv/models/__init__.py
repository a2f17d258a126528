"""Networks: creating them, putting the push-pull unit into their stem, normalising their input, storing them."""

from pushpull_conv.models.checkpoint import ModelSpec, load_checkpoint, load_weights_, save_checkpoint
from pushpull_conv.models.classifier import IMAGENET_MEAN, IMAGENET_STD, ChosenLogits, Classifier, count_parameters
from pushpull_conv.models.create import create_model, pretrained_synsets
from pushpull_conv.models.layer_kinds import apply_layer_
from pushpull_conv.models.pretrained import find_checkpoint, load_pretrained, pretrained_folder, pretrained_models
from pushpull_conv.models.surgery import SwapReport, swap_first_conv_
from pushpull_conv.models.weights import PRETRAINED, identity_of_weights, with_weights

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PRETRAINED",
    "ChosenLogits",
    "Classifier",
    "ModelSpec",
    "SwapReport",
    "apply_layer_",
    "count_parameters",
    "create_model",
    "find_checkpoint",
    "identity_of_weights",
    "load_checkpoint",
    "load_pretrained",
    "load_weights_",
    "pretrained_folder",
    "pretrained_models",
    "pretrained_synsets",
    "save_checkpoint",
    "swap_first_conv_",
    "with_weights",
]
