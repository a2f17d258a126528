"""Which networks of timm and torchvision take the push-pull unit: found, swapped, trained one step.

    python benchmarks/zoo.py [--largest 25] [--rows runs/zoo.jsonl] [--out docs/surgery.md]

Every architecture is built without memory (on the meta device) and swapped. Those of at most ``--largest`` million
parameters are then built again with weights and trained one step, on the smallest images that they take. A row is kept
in ``--rows`` as soon as it is known, so a stopped run goes on. The table is written at the end.
"""

import argparse
import json
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

import pushpull_conv
from pushpull_conv import InputError, PushPullConv2d, create_model, swap_first_conv_
from pushpull_conv.files import write_text
from pushpull_conv.models import count_parameters
from pushpull_conv.models.create import create_without_memory

CLASSES = 3
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 384)
STEP_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """What is known of one architecture: its stem or why it was refused, and its step or why there was none."""

    name: str
    parameters: int
    stem: str = ""
    kind: str = ""
    refusal: str = ""
    step: str = ""

    def __str__(self) -> str:
        found = f"`{self.stem}` ({self.kind})" if self.stem else f"refused: {self.refusal}"
        return f"| {self.name} | {self.parameters / 1e6:.1f} | {found} | {self.step} |"


def names() -> list[str]:
    known = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision:{name}" for name in known] + [f"timm:{name}" for name in timm.list_models()]


def examine(name: str, largest: float) -> Row:
    """Swap the stem of one architecture and, if it has at most ``largest`` parameters, train it one step."""
    network = create_without_memory(name, num_classes=CLASSES)
    parameters = count_parameters(network)
    try:
        _, report = swap_first_conv_(network)
    except InputError as error:
        return Row(name, parameters, refusal=str(error))
    step = "larger"
    if parameters <= largest:
        signal.setitimer(signal.ITIMER_PROF, STEP_SECONDS)  # processor time, whatever else the machine does
        try:
            step = train_a_step(name)
        except TimeoutError as error:
            step = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Row(name, parameters, report.name, type(report.replaced).__name__, step=step)


def train_a_step(name: str) -> str:
    """Train the swapped network one step, on the smallest images that it takes; return what happened."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=CLASSES, pushpull={"trainable_alpha": True}).train()
    unit = next(module for module in network.modules() if isinstance(module, PushPullConv2d))
    calls: list[int] = []
    unit.register_forward_hook(lambda module, inputs, output: calls.append(1))
    for side in _sides(network):
        calls.clear()
        for _ in range(2):  # a head or branch that starts from zero lets no gradient through in the first step
            try:
                outputs = list(_tensors(network(torch.rand(2, _channels(network), side, side))))
            except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
                reason = f"the network fails: {' '.join(str(error).split())[:120]}"
                break
            if len(calls) != 1:
                return f"the unit was called {len(calls)} times"
            reason = _step(network, unit, outputs)
            if not reason:
                return f"{side} px"
            calls.clear()
    return reason


def _step(network: nn.Module, unit: PushPullConv2d, outputs: list[Tensor]) -> str:
    """Learn classes, or an arbitrary target where there are no logits; return what went wrong, if anything."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    optimizer.zero_grad()
    if [output.shape for output in outputs] == [(2, CLASSES)]:
        nn.functional.cross_entropy(outputs[0], torch.tensor([0, 2])).backward()
    else:
        sum(output.float().square().mean() for output in outputs).backward()
    optimizer.step()
    for name, value in {"weight": unit.weight, "alpha": unit.alpha}.items():
        if value.grad is None or not value.grad.any():
            return f"{name} got no gradient"
        if not value.isfinite().all():
            return f"{name} is not finite"
    return ""


def _channels(network: nn.Module) -> int:
    """Return the image's channels; the unit has others where the network folds pixels into channels first."""
    return getattr(network, "pretrained_cfg", {}).get("input_size", (3,))[0]


def _sides(network: nn.Module) -> tuple[int, ...]:
    config = getattr(network, "pretrained_cfg", {})
    own = config.get("input_size", (3, 224, 224))[-1]
    return (own,) if config.get("fixed_input_size") else (*(side for side in SIZES if side < own), own)


def _tensors(output: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors of a network's output, whatever form it has."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)


def _stop(signum: int, frame: object) -> None:
    raise TimeoutError(f"took more than {STEP_SECONDS} s of processor time")


def collect(rows_file: Path, largest: float) -> list[Row]:
    """Examine every architecture that the file has no row for."""
    rows_file.parent.mkdir(parents=True, exist_ok=True)
    lines = rows_file.read_text(encoding="utf-8").splitlines() if rows_file.exists() else []
    rows = {row.name: row for row in (Row(**json.loads(line)) for line in lines)}
    signal.signal(signal.SIGPROF, _stop)
    wanted = names()
    with rows_file.open("a", encoding="utf-8") as file:
        for place, name in enumerate(wanted, 1):
            if name in rows:
                continue
            row = examine(name, largest)
            rows[name] = row
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            print(f"{place}/{len(wanted)} {row}", flush=True)
    return [rows[name] for name in wanted]


PAGE = """# Which networks take the unit

Generated by `python benchmarks/zoo.py` with {versions}, on one CPU thread.
`tests/test_zoo.py` holds a sample of the rows to the code.

All {all} architectures: torchvision's {torchvision} classifiers and timm's {timm}.
**{swapped} were swapped** ({kinds}) and **{refused} refused**, each with the reason that a user reads.

Of the swapped, the {small} of at most {largest} million parameters were trained a step of SGD (random weights and
images, {classes} classes, `trainable_alpha=True`), on the smallest images that the network takes: the last column gives
their side. It does so only if the forward pass called the unit exactly once, and the step had a gradient for the unit's
weight and alpha and left them finite (the second step where a head or branch starts from zero); otherwise it says what
went wrong ({odd} times). The other {larger} are *larger* and were swapped only, without memory.

Of a vision transformer the stem is the patch embedding: it is swapped, but no result says what that is good for.

| network | million parameters | stem | step |
|---|---:|---|---|
"""


def page(rows: list[Row], largest: float) -> str:
    """Return the table as a Markdown page."""
    swapped = [row for row in rows if row.stem]
    stepped, larger = (
        sum(row.step.endswith(" px") for row in swapped),
        sum(row.step == "larger" for row in swapped),
    )
    kinds = Counter(row.kind for row in swapped).most_common()
    packages = {"pushpull-conv": pushpull_conv, "timm": timm, "torchvision": torchvision, "torch": torch}
    head = PAGE.format(
        versions=", ".join(f"{name} {package.__version__}" for name, package in packages.items()),
        all=len(rows),
        torchvision=sum(row.name.startswith("torchvision:") for row in rows),
        timm=sum(row.name.startswith("timm:") for row in rows),
        swapped=len(swapped),
        kinds=", ".join(f"{count} {kind}" for kind, count in kinds),
        refused=len(rows) - len(swapped),
        small=len(swapped) - larger,
        largest=f"{largest / 1e6:g}",
        classes=CLASSES,
        odd=len(swapped) - larger - stepped,
        larger=larger,
    )
    return head + "\n".join(map(str, rows)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--largest", type=float, default=25, help="million parameters up to which a step is trained")
    parser.add_argument("--rows", type=Path, default=Path("runs/zoo.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/surgery.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = collect(arguments.rows, arguments.largest * 1e6)
    write_text(arguments.out, page(rows, arguments.largest * 1e6))


if __name__ == "__main__":
    main()
