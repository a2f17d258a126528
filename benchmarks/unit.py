"""What the push-pull unit costs, as a multiple of the convolution whose place it takes.

    python benchmarks/unit.py [--rounds 15] [--no-compile]

At the stem of a ResNet-50 and of a CIFAR network, forward and forward + backward to the weights (not to the image, as
in a stem), on one CPU thread in float32 and bfloat16, and on CUDA in bfloat16 and channels-last where there is a GPU,
there also at a batch of 256 and in whole training steps of a ResNet-50. In every round each form runs once, in turn;
its ratio is to the `nn.Conv2d` of the same round. Printed: the median of the ratios and the middle half of them. On a
CPU the time is that of the processor, which other work on the machine lengthens least, and freed memory is kept for the
next tensor.

Memory is what one forward leaves for its backward (every saved tensor once, and the response), and on CUDA the peak
of forward + backward; both in MB.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from machine import hardware, keep_memory, milliseconds
from torch import Tensor, nn

from pushpull_conv import PushPullConv2d, swap_first_conv_

WARM_UP_ROUNDS = 3


class Stem(NamedTuple):
    """Where a unit is measured."""

    name: str
    images: tuple[int, int, int, int]
    convolution: dict[str, Any]


GPU_STEM = Stem("ResNet-50, batch 256", (256, 3, 224, 224), {"kernel_size": 7, "stride": 2, "padding": 3})
STEMS = (
    Stem("ResNet-50", (8, 3, 224, 224), {"kernel_size": 7, "stride": 2, "padding": 3}),
    Stem("CIFAR", (64, 3, 32, 32), {"kernel_size": 3, "padding": 1}),
)


class RectifiedConvolution(nn.Conv2d):
    """What the unit is without its inhibition."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the rectified response."""
        return super().forward(input).relu()


class TwoConvolutions(nn.Module):
    """The unit as it was published: a second convolution, and an average pool over every filter."""

    def __init__(self, avg_kernel_size: int, **convolution: Any) -> None:
        super().__init__()
        self.push = nn.Conv2d(3, 64, bias=False, **convolution)
        self.average = nn.AvgPool2d(avg_kernel_size, 1, avg_kernel_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the response to ``x``."""
        weight, conv = self.push.weight, self.push
        low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
        pull = nn.functional.conv2d(x, low + high - weight, None, conv.stride, conv.padding)
        return self.push(x).relu() - self.average(pull).relu()


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    print(f"{hardware()}, one thread of them; {options.rounds} rounds\n")
    print("| device | stem | avg | form | forward | forward + backward | saved | peak |")
    print("|---|---|--:|---|--:|--:|--:|--:|")
    layouts = [
        ("cpu", torch.float32, torch.contiguous_format),
        ("cpu", torch.float32, torch.channels_last),
        ("cpu", torch.bfloat16, torch.channels_last),  # as the recipes train
    ]
    if torch.cuda.is_available():
        layouts.append(("cuda", torch.bfloat16, torch.channels_last))
    for device, dtype, layout in layouts:
        placed = {"device": device, "dtype": dtype, "memory_format": layout}
        parts = device, "bfloat16" * (dtype == torch.bfloat16), "channels-last" * (layout == torch.channels_last)
        place = ", ".join(filter(None, parts))
        for stem in (*STEMS, GPU_STEM) if device == "cuda" else STEMS:
            for avg_kernel_size in (3, 5):
                forms = build_forms(stem, avg_kernel_size, options.compile)
                for name, cells in measure(forms, torch.randn(stem.images), placed, options.rounds).items():
                    print(
                        f"| {place} | {stem.name} | {avg_kernel_size} | {name} | {' | '.join(cells)} |",
                        flush=True,
                    )
    if torch.cuda.is_available():
        print_training_steps(options.rounds)


def print_training_steps(rounds: int) -> None:
    """Whole steps of a ResNet-50 with and without the unit, in bfloat16 and channels-last."""
    import torchvision

    plain, swapped = torchvision.models.resnet50(), torchvision.models.resnet50()
    swap_first_conv_(swapped)
    images = torch.randn(256, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (256,), device="cuda")

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    calls = {}
    for name, model in (("ResNet-50", plain), ("ResNet-50, PP3", swapped)):
        model.to("cuda", memory_format=torch.channels_last)
        calls[name] = functools.partial(step, model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    print("\n| training step, batch 256 | time |\n|---|--:|")
    for name, words in compare(calls, rounds, seconds=time.perf_counter).items():
        print(f"| {name} | {words} |")


def build_forms(stem: Stem, avg_kernel_size: int, compiled: bool) -> dict[str, nn.Module]:
    """The convolution first, then what is compared with it."""
    torch.compiler.reset()
    unit = PushPullConv2d(3, 64, bias=False, avg_kernel_size=avg_kernel_size, **stem.convolution)
    trained = PushPullConv2d(
        3, 64, bias=False, avg_kernel_size=avg_kernel_size, trainable_alpha=True, **stem.convolution
    )
    plain = nn.Conv2d(3, 64, bias=False, **stem.convolution)
    forms = {
        "nn.Conv2d": plain,
        "relu(nn.Conv2d)": RectifiedConvolution(3, 64, bias=False, **stem.convolution),
        "PushPullConv2d": unit,
        "PushPullConv2d, trainable alpha": trained,
        "two convolutions, as published": TwoConvolutions(avg_kernel_size, **stem.convolution),
    }
    if compiled:  # both: the compiler may slow the convolution itself
        forms["nn.Conv2d, compiled"] = torch.compile(plain)
        forms["PushPullConv2d, compiled"] = torch.compile(unit)
    return forms


def measure(forms: dict[str, nn.Module], images: Tensor, placed: dict[str, Any], rounds: int) -> dict[str, list[str]]:
    """Cost of every form, forward and forward + backward, in words."""
    images = images.to(**placed)
    forms = {name: form.to(**placed) for name, form in forms.items()}
    gradient = torch.randn_like(next(iter(forms.values()))(images))
    seconds = time.perf_counter if images.is_cuda else time.process_time
    columns = []
    for run in (forward, forward_and_backward):
        calls = {name: functools.partial(run, form, images, gradient) for name, form in forms.items()}
        columns.append(compare(calls, rounds, seconds))
    columns.append({name: saved_memory(form, images) for name, form in forms.items()})
    columns.append({name: peak_memory(form, images, gradient) for name, form in forms.items()})
    return {name: [column[name] for column in columns] for name in forms}


def saved_memory(form: nn.Module, images: Tensor) -> str:
    """What one forward keeps for its backward, without the images and the parameters."""
    kept: dict[int, int] = {}
    known = {tensor.data_ptr() for tensor in (images, *form.parameters(), *form.buffers())}

    def count(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        response = form(images)
    kept[response.untyped_storage().data_ptr()] = response.untyped_storage().nbytes()
    return f"{sum(kept.values()) / 1e6:.0f}"


def peak_memory(form: nn.Module, images: Tensor, gradient: Tensor) -> str:
    """Most memory allocated on the GPU in a forward and backward, beyond what was there before."""
    if not images.is_cuda:
        return "–"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward_and_backward(form, images, gradient)
    return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:.0f}"


@torch.no_grad()
def forward(form: nn.Module, images: Tensor, _: Tensor) -> None:
    """Run as in inference."""
    form(images)


def forward_and_backward(form: nn.Module, images: Tensor, gradient: Tensor) -> None:
    """Run as in training."""
    torch.autograd.grad(form(images), list(form.parameters()), gradient)


def compare(calls: dict[str, Callable[[], None]], rounds: int, seconds: Callable[[], float]) -> dict[str, str]:
    """Milliseconds of the first call, and ratios of the others to it."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP_ROUNDS + rounds):
        for name, call in calls.items():
            times[name].append(milliseconds(call, seconds))
    measured = {name: values[WARM_UP_ROUNDS:] for name, values in times.items()}
    base, *others = measured
    words = {base: f"{statistics.median(measured[base]):.1f} ms"}
    for name in others:
        ratios = [value / unit for value, unit in zip(measured[name], measured[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        words[name] = f"{middle:.2f} x ({low:.2f}–{high:.2f})"
    return words


if __name__ == "__main__":
    main()
