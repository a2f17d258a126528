"""Classifiers as Hugging Face models: a folder, or a repository, of weights, configuration and model card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.utils import HFValidationError

from pushpull_conv.errors import InputError
from pushpull_conv.files import MODEL_FILE
from pushpull_conv.interop.card import card_text
from pushpull_conv.models import (
    Classifier,
    ModelSpec,
    find_checkpoint,
    load_checkpoint,
    load_weights_,
    save_checkpoint,
)


class HubClassifier(Classifier, PyTorchModelHubMixin, library_name="pushpull-conv"):
    """A `pushpull_conv.models.Classifier` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    A saved folder holds ``model.safetensors``, which `pushpull_conv.models.load_checkpoint` and ``pushpull evaluate``
    read as well, ``config.json`` with the arguments below, and a model card, ``README.md``. Weights are only ever read
    from safetensors, and must fit the configuration wholly.

    Give ``model_card_kwargs={"run": FOLDER, "license": "cc-by-4.0"}`` to ``save_pretrained`` or ``push_to_hub`` for a
    card that tells where the model comes from and how it scored; see `generate_model_card`. A ``README.md`` that is
    there already is kept.

    Args:
        name: As in `pushpull_conv.create_model`, like ``stem``, ``pushpull`` and ``layer``.
        num_classes: Number of logits.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        stem: See ``name``.
        pushpull: See ``name``.
        classes: Names of the classes in the order of the logits; may be empty.
        layer: See ``name``.
        greyscale: Whether it learned from luminance on all channels, and expects that.

    Raises:
        InputError: As `pushpull_conv.create_model`; from ``from_pretrained``: there is no such folder, it lacks a file,
            or the weights are damaged or of another architecture.

    Example:
        >>> import tempfile, torch
        >>> model = HubClassifier("resnet20", 10, (0.5,) * 3, (0.25,) * 3, pushpull={"avg_kernel_size": 3}).eval()
        >>> folder = tempfile.mkdtemp()
        >>> model.save_pretrained(folder)
        >>> images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        >>> torch.equal(HubClassifier.from_pretrained(folder)(images), model(images))
        True
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        stem: str | None = None,
        pushpull: Mapping[str, Any] | None = None,
        classes: Sequence[str] = (),
        layer: Mapping[str, Any] | None = None,
        greyscale: bool = False,
    ) -> None:
        self.spec = ModelSpec(
            name, num_classes, stem, pushpull, tuple(mean), tuple(std), tuple(classes), layer, greyscale
        )
        super().__init__(self.spec.build().network, mean, std)
        self._hub_mixin_config = asdict(self.spec)  # the mixin drops from its own what JSON cannot hold

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "HubClassifier":
        """Take over a trained model.

        Args:
            path: A file that `pushpull_conv.models.save_checkpoint` wrote, a run's folder that holds one, or the name
                of a model that comes with the package.

        Returns:
            The classifier, in evaluation mode on the CPU.

        Raises:
            InputError: There is no such model, or as `pushpull_conv.models.load_checkpoint`.
        """
        model, _ = load_checkpoint(find_checkpoint(path), build=lambda spec: cls(**vars(spec)))
        return cast("HubClassifier", model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **settings: Any) -> "HubClassifier":
        """Load a saved model, in evaluation mode, on the CPU unless ``map_location`` says otherwise.

        Args:
            pretrained_model_name_or_path: A folder that ``save_pretrained`` wrote, or a repository of the hub.
            **settings: As in `huggingface_hub.PyTorchModelHubMixin.from_pretrained`, but all weights must fit: there is
                no ``strict``.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **settings)
        except (JSONDecodeError, UnicodeDecodeError) as error:
            place = f"config.json of '{pretrained_model_name_or_path}'"
            raise InputError(f"{place} is truncated or not JSON ({error}); save the model again") from error
        except HFValidationError as error:
            raise InputError(
                f"'{pretrained_model_name_or_path}' is no folder, and no name of a repository; check the path"
            ) from error

    def generate_model_card(
        self,
        run: str | Path | None = None,
        license: str | None = None,
        baseline: str | Path | None = None,
    ) -> ModelCard:
        """Write the model card: what the model is, how it is used, its data, recipe, seeds, errors and licence.

        Args:
            run: The model's folder of a run, as ``pushpull run`` and ``evaluate`` leave it; None: nothing is known.
            license: The weights' licence, as Hugging Face names it (``"apache-2.0"``); None: not stated.
            baseline: Such a folder of the model that ``run`` is compared with, both of the whole benchmark; None: none.

        Raises:
            InputError: ``run`` or ``baseline`` holds no results, or they hold results that do not go together.
        """
        run, baseline = (None if folder is None else Path(folder) for folder in (run, baseline))
        return ModelCard(card_text(self.spec, run, license, baseline=baseline))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(save_directory / MODEL_FILE, self, self.spec)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str | torch.device = "cpu",
        **settings: Any,
    ) -> "HubClassifier":
        for name in ("proxies", "resume_download"):  # which huggingface-hub hands over before 1.0
            settings.pop(name, None)
        if "name" not in settings:
            raise InputError(f"'{model_id}' has no config.json of a pushpull-conv model; save one with save_pretrained")
        try:
            model = cls(**settings)
        except TypeError as error:  # names that are missing or unknown
            raise InputError(
                f"config.json of '{model_id}', with the settings given, does not fit a pushpull-conv model ({error})"
            ) from error
        if Path(model_id).is_dir():
            file = Path(model_id, MODEL_FILE)
        else:
            downloaded = hf_hub_download(
                model_id,
                MODEL_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                token=token,
                local_files_only=local_files_only,
            )
            file = Path(downloaded)
        load_weights_(model, file)
        return model.eval().to(map_location)
