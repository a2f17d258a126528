"""What holds the house together: public names, light imports, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pushpull_conv

PACKAGE = Path(pushpull_conv.__file__).parent

# Each room and the rooms below it, from which it may import. A file belongs to the room of its first name.
ROOMS = [
    "cli",
    "checking",
    "planning",
    "cluster",
    "experiment",
    "benchmarking",
    "classifiers",
    "drawing",
    "comparison",
    "interop",
    "report",
    "training",
    "augment",
    "benchmark",
]
ROOMS += [
    "provenance",
    "models",
    "data",
    "corruptions",
    "comparison_layers",
    "layers",
    "functional",
    "kernels",
    "ranks",
]
ROOMS += ["files", "progress", "repeats", "cores", "pictures", "errors", "interrupts", "_version"]
NOT_BELOW = {("report", "training"), ("benchmark", "models"), ("models", "data"), ("data", "corruptions")}
OUTSIDE = {
    "lightning": {"training", "interop"},
    "pydantic": {"training"},
    "yaml": {"training", "cluster"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "timm": {"models", "interop", "training"},
    "torchmetrics": {"interop"},
    "huggingface_hub": {"interop"},
    "torchvision": {"models", "augment"},
    "safetensors": {"models"},
    "pyarrow": {"data", "interop"},
    "sklearn": {"data"},
    "triton": {"kernels"},
    "typer": {"cli"},
    "rich": {"cli", "checking", "planning", "cluster", "benchmarking", "experiment", "progress"}
    | {"comparison", "training", "report"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require_module":
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = room_of(path)
    for name in imports_of(path):
        outer, _, inner = name.partition(".")
        if outer == "pushpull_conv" and inner:
            below = inner.split(".")[0]
            assert ROOMS.index(below) >= ROOMS.index(room), f"{room} must not import {below}, which is above it"
            assert (room, below) not in NOT_BELOW, f"{room} must not import {below}"
        assert room in OUTSIDE.get(outer, {room}), f"{outer} belongs to {OUTSIDE[outer]}, not {room}"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_does_not_import_torch():
    result = run_python(
        "import sys; sys.argv = ['pushpull', '--help']\n"
        "from pushpull_conv.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    assert result.returncode == 0, result.stderr
    assert "evaluate" in result.stdout


def test_what_is_not_needed_is_not_waited_for():
    """By `import`, and by the commands `evaluate` and `corrupt`: each takes about as long to import as PyTorch."""
    result = run_python(
        "import sys\n"
        "from pushpull_conv import PushPullConv2d, corrupt, evaluate, swap_first_conv_\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "import pushpull_conv.benchmarking, pushpull_conv.classifiers, pushpull_conv.report.tables\n"
        "assert not {'lightning', 'timm', 'torchvision', 'matplotlib'} & set(sys.modules)"
    )
    assert result.returncode == 0, result.stderr


def test_the_core_needs_torch_numpy_and_pillow_only():
    extras = ["lightning", "pydantic", "yaml", "matplotlib", "jinja2", "timm", "torchvision", "safetensors", "pyarrow"]
    extras += ["sklearn", "scipy", "tensorboard", "imagecorruptions", "cv2", "skimage", "typer", "rich", "triton"]
    result = run_python(
        f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
        "import torch\n"
        "from pushpull_conv import PushPullConv2d, corrupt, mean_error, r_net, swap_first_conv_\n"
        "model, report = swap_first_conv_(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))\n"
        "assert isinstance(model[0], PushPullConv2d)\n"
        "images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)\n"
        "corrupt(images, 'fog', 3, index=torch.arange(2), profile='cifar')\n"
        "assert r_net(0.2, 0.3, 0.2, 0.3) == 0"
    )
    assert result.returncode == 0, result.stderr


def test_the_public_names_are_those_of_the_doors():
    assert sorted(pushpull_conv.__all__) == dir(pushpull_conv)
    assert set(pushpull_conv.__all__) == {
        "CORRUPTIONS",
        "InputError",
        "PushPullConv2d",
        "Results",
        "__version__",
        "corrupt",
        "create_model",
        "evaluate",
        "mce",
        "mean_error",
        "push_pull_conv2d",
        "r_net",
        "relative_mce",
        "swap_first_conv_",
    }
    for name in pushpull_conv.__all__:
        assert getattr(pushpull_conv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pushpull_conv.nothing  # noqa: B018


def test_no_machine_paths_in_the_project():
    root = PACKAGE.parents[1]
    if not (root / ".git").exists():
        pytest.skip("not in a checkout")
    listed = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True).stdout
    texts = [root / name for name in listed.splitlines() if name.endswith((".py", ".md", ".yaml", ".toml", ".json"))]
    for text in texts:
        if text.exists():
            assert "/" + "home/" not in text.read_text(encoding="utf-8"), text
