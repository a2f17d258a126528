"""The original files of CIFAR-10: a folder of Python pickles, read without running what they say.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import itertools
import logging
import pickle
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.errors import InputError
from pushpull_conv.files import writable_folder

FOLDER = "cifar-10-batches-py"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}

logger = logging.getLogger(__name__)


def read_cifar_batches(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read the pickled batches of one split.

    Args:
        folder: The unpacked ``cifar-10-batches-py``.
        split: ``"train"`` or ``"test"``.

    Returns:
        Images uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]``, in the original order.

    Raises:
        InputError: A batch is missing, truncated, laid out differently or holds anything but arrays.
    """
    images, labels = zip(*(_read_batch(folder / name) for name in BATCHES[split]), strict=True)
    return torch.cat(images), torch.cat(labels)


def download_cifar_batches(folder: Path) -> None:
    """Download the original archive and unpack it to ``folder``, which appears only when it is complete.

    Raises:
        InputError: No network, a damaged download, or a folder that cannot be written.
    """
    writable_folder(folder.parent)
    logger.info("downloading CIFAR-10 (170 MB) from %s", URL)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        archive, unpacked = Path(temporary, "archive.tar.gz"), Path(temporary, FOLDER)
        _download(archive)
        unpacked.mkdir()
        with tarfile.open(archive) as tar:
            for name in itertools.chain(*BATCHES.values()):
                batch = cast(IO[bytes], tar.extractfile(f"{FOLDER}/{name}"))  # a plain file, as the MD5 tells
                (unpacked / name).write_bytes(batch.read())
        try:
            unpacked.replace(folder)
        except OSError:
            if not folder.is_dir():  # else another process that was started together with this one was faster
                raise


def _download(path: Path) -> None:
    try:
        with urllib.request.urlopen(URL, timeout=30) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
    except OSError as error:
        raise InputError(
            f"CIFAR-10 cannot be downloaded from {URL} ({error}); connect to a network, "
            "or give a data folder with its Parquet files, class folders or original batches"
        ) from error
    with path.open("rb") as file:
        if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != MD5:
            raise InputError(f"the download from {URL} is damaged (its MD5 is not {MD5}); try again")


def _read_batch(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        # Python 2 wrote the original, with byte strings as keys; copies written by Python 3 have text.
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        pixels, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 32 * 32) or labels.dtype.kind != "i":
            raise ValueError(f"data {pixels.dtype} {pixels.shape}, labels {labels.dtype} {labels.shape}")
    except FileNotFoundError as error:
        raise InputError(f"batch '{path}' is missing; copy the whole folder {FOLDER}") from error
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"batch '{path}' is truncated or not a CIFAR-10 batch; copy it again") from error
    images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32))
    return images, torch.from_numpy(labels.astype(np.int64))


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers; refuses every other class or function before it can run."""

    _ADMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # Which function rebuilds an array, and where it lies, depends on the numpy and the protocol of the writer.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy.core.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
        ("numpy._core.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise InputError(f"a CIFAR-10 batch asks to run {module}.{name}: refused, nothing was run; do not trust it")
        return self._ADMITTED[module, name]
