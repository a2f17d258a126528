"""Training images per second from the disk, beside torchvision's ImageFolder.

    python benchmarks/loading.py FOLDER [--data-set imagenet] [--sides 375 800] [--images 1024] [--rounds 5]

Photographs of a data set are enlarged or reduced so that their shorter side has a number of pixels (375 is the usual
one in ImageNet), and stored as JPEG files of quality 90: once as class folders, once in a tar file. Each reader then
gives an epoch of shuffled batches of 64: shorter side scaled to 256, 224 x 224 cut out at a random place, mirrored or
not, uint8. All have one worker process per core. One epoch each to warm up, then rounds in which all read in turn; the
median of the images per second, with the slowest and fastest round, and how many cores were busy on average.
Everything is read from the disk's cache.
"""

import argparse
import io
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from machine import hardware
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from pushpull_conv.cores import usable_cores
from pushpull_conv.data import DATA_SETS, open_images
from pushpull_conv.data.training_loader import PictureBatches, Preparation

BATCH = 64
CLASSES = 8
QUALITY = 90


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-set", default="imagenet", choices=sorted(DATA_SETS))
    parser.add_argument("--split", default="test")
    parser.add_argument("--sides", type=int, nargs="+", default=[375, 800])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    source = open_images(options.data_set, options.split, root=options.folder)
    photos = [source.picture(place) for place in range(min(len(source), options.images))]
    workers = usable_cores()
    print(f"{hardware()}; {workers} worker processes, {options.images} images, {options.rounds} rounds\n")
    print("| shorter side | reader | images/s | slowest to fastest | ratio | cores busy |\n|--:|---|--:|--:|--:|--:|")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), photos, side, options.images)
            rounds = measure(readers(Path(folder), workers), options.images // BATCH * BATCH, options.rounds)
        peer = statistics.median(rate for rate, _ in rounds["torchvision, ImageFolder"])
        for name, each in rounds.items():
            rates, busy = zip(*each, strict=True)
            median, spread = statistics.median(rates), f"{min(rates):.0f} to {max(rates):.0f}"
            cores = f"{statistics.median(busy):.2f}"
            print(f"| {side} | {name} | {median:.0f} | {spread} | {median / peer:.2f} x | {cores} |")


def write(folder: Path, photos: list[Image.Image], side: int, count: int) -> None:
    """Store ``count`` photographs, over again if there are fewer, as ``folders/train`` and ``tar/train-000000.tar``."""
    encoded = [jpeg(photo, side) for photo in photos]
    (folder / "tar").mkdir()
    (folder / "tar" / "classes.txt").write_text("".join(f"class{label}\n" for label in range(CLASSES)))
    with tarfile.open(folder / "tar" / "train-000000.tar", "w") as shard:
        for number in range(count):
            content, label = encoded[number % len(encoded)], number % CLASSES
            file = folder / "folders" / "train" / f"class{label}" / f"{number:06}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            for suffix, part in (("jpg", content), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{number:06}.{suffix}")
                entry.size = len(part)
                shard.addfile(entry, io.BytesIO(part))


def jpeg(photo: Image.Image, side: int) -> bytes:
    """A photograph with a shorter side of so many pixels as a JPEG file."""
    scale = side / min(photo.size)
    content = io.BytesIO()
    photo.resize([round(scale * length) for length in photo.size], Image.Resampling.BICUBIC).save(
        content, "JPEG", quality=QUALITY
    )
    return content.getvalue()


def readers(folder: Path, workers: int) -> dict[str, Iterable]:
    """Every reader: gone through, it gives the batches of an epoch."""
    steps = [
        transforms.Resize(256),
        transforms.RandomCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ]
    peer = datasets.ImageFolder(str(folder / "folders" / "train"), transforms.Compose(steps))
    loader = DataLoader(peer, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    preparation = Preparation(crop=True, flip=True)
    ours = {
        name: PictureBatches(
            open_images("folder", "train", root=folder / layout),
            batch_size=BATCH,
            seed=0,
            preparation=preparation,
            workers=workers,
        )
        for name, layout in (("ours, class folders", "folders"), ("ours, tar", "tar"))
    }
    return {"torchvision, ImageFolder": loader, **ours}


def measure(readers: dict[str, Iterable], count: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Images per second and busy cores of every reader in every round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, batches in readers.items():
            started, worked = time.perf_counter(), work()
            read = sum(len(batch[0]) for batch in batches)
            if read != count:
                raise RuntimeError(f"{name} gave {read} images of {count}")
            taken = time.perf_counter() - started
            if number:
                found[name].append((count / taken, (work() - worked) / taken))
    return found


def work() -> float:
    """Seconds of processor time of this process and of the workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
