import copy
import io
import os
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

from pushpull_conv.comparison_layers import BlurredConv2d
from pushpull_conv.errors import InputError
from pushpull_conv.functional import push_pull_conv2d_reference
from pushpull_conv.layers import PushPullConv2d

GEOMETRIES = [
    {"kernel_size": 7, "stride": 2, "padding": 3, "bias": False},
    {"kernel_size": (3, 5), "padding": (1, 2), "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "dilation": 2, "padding_mode": "circular"},
    {"kernel_size": 3, "padding": "valid", "groups": 2, "stride": (1, 2)},
    {"kernel_size": 3, "padding": 2, "padding_mode": "replicate"},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("avg_kernel_size", [0, 5])
def test_the_unit_passes_its_settings_to_the_function(geometry, avg_kernel_size):
    unit = PushPullConv2d(4, 6, **geometry, avg_kernel_size=avg_kernel_size, alpha=0.3)
    settings = {name: value for name, value in geometry.items() if name not in ("kernel_size", "bias")}
    x = torch.randn(2, 4, 12, 12)
    expected = push_pull_conv2d_reference(x, unit.weight, unit.bias, 0.3, avg_kernel_size=avg_kernel_size, **settings)
    torch.testing.assert_close(unit(x), expected, atol=1e-5, rtol=1e-4)
    assert unit(x).shape == nn.Conv2d(4, 6, **geometry)(x).shape


def test_state_dict_keys_and_what_is_trained():
    fixed, trained = PushPullConv2d(3, 8, 3), PushPullConv2d(3, 8, 3, trainable_alpha=True)
    assert set(fixed.state_dict()) == set(trained.state_dict()) == {"weight", "bias", "alpha"}
    assert {name for name, _ in fixed.named_parameters()} == {"weight", "bias"}
    assert {name for name, _ in trained.named_parameters()} == {"weight", "bias", "alpha"}
    assert (fixed.trainable_alpha, trained.trainable_alpha) == (False, True)
    assert torch.equal(fixed.alpha, torch.ones(8))
    trained(torch.randn(1, 3, 8, 8)).square().sum().backward()
    assert trained.alpha.grad.shape == (8,)
    assert trained.alpha.grad.abs().sum() > 0


def test_trainable_alpha_starts_uniform_between_0_and_1():
    torch.manual_seed(0)
    alpha = PushPullConv2d(1, 20_000, 1, trainable_alpha=True).alpha.detach()
    assert 0 <= alpha.min() < 0.001
    assert 0.999 < alpha.max() < 1
    assert alpha.mean().item() == pytest.approx(0.5, abs=0.01)
    assert alpha.std().item() == pytest.approx(12**-0.5, abs=0.005)


def test_alpha_may_be_one_number_per_filter():
    unit = PushPullConv2d(3, 4, 3, alpha=[0.0, 0.25, 0.5, 1.0])
    assert unit.alpha.tolist() == [0.0, 0.25, 0.5, 1.0]
    assert "alpha=0..1" in repr(unit)


def test_the_weights_start_as_those_of_a_convolution():
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 8, 5)
    torch.manual_seed(3)
    unit = PushPullConv2d(3, 8, 5, trainable_alpha=True)
    assert torch.equal(conv.weight, unit.weight)
    assert torch.equal(conv.bias, unit.bias)


def test_reset_parameters_draws_anew_and_restores_alpha():
    fixed, trained = PushPullConv2d(3, 8, 3, alpha=0.5), PushPullConv2d(3, 8, 3, trainable_alpha=True)
    for unit in (fixed, trained):
        weight = unit.weight.clone()
        with torch.no_grad():
            unit.alpha.fill_(9)
        unit.reset_parameters()
        assert not torch.equal(unit.weight, weight)
    assert torch.equal(fixed.alpha, torch.full((8,), 0.5))
    assert trained.alpha.max() < 1


@pytest.mark.parametrize("trainable_alpha", [False, True])
def test_meta_device_then_materialised(trainable_alpha):
    with torch.device("meta"):
        unit = PushPullConv2d(3, 8, 3, alpha=0.5, trainable_alpha=trainable_alpha)
    assert unit(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 8, 6, 6)
    assert "avg_kernel_size=3" in repr(unit)
    unit.to_empty(device="cpu").reset_parameters()
    assert unit.trainable_alpha is trainable_alpha
    assert unit(torch.randn(2, 3, 8, 8)).isfinite().all()
    assert trainable_alpha or torch.equal(unit.alpha, torch.full((8,), 0.5))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_from_conv2d_keeps_the_convolution(geometry):
    conv = nn.Conv2d(4, 6, **geometry, dtype=torch.float64).to(memory_format=torch.channels_last).eval()
    conv.weight.requires_grad_(False)
    unit = PushPullConv2d.from_conv2d(conv, avg_kernel_size=5, alpha=0.0)
    assert unit.weight is conv.weight
    assert unit.bias is conv.bias
    assert unit.alpha.dtype == torch.float64
    assert not unit.training
    x = torch.randn(2, 4, 12, 12, dtype=torch.float64)
    plain = conv(x) if conv.bias is None else conv(x) - conv.bias.view(-1, 1, 1)
    shift = 0 if conv.bias is None else conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(unit(x), plain.relu() + shift)


def test_from_conv2d_draws_no_random_numbers_for_a_fixed_alpha():
    conv = nn.Conv2d(3, 8, 3)
    before = torch.get_rng_state()
    PushPullConv2d.from_conv2d(conv)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_built_before_from_conv2d_goes_on_working():
    conv = nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    unit = PushPullConv2d.from_conv2d(conv)
    before = unit.weight.clone()
    unit(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(unit.weight, before)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("prefix", ["", "stem."])
def test_state_dicts_of_the_research_code_load(shape, prefix):
    strength = torch.rand(shape)
    old = {"push_conv.weight": torch.randn(8, 3, 3, 3), "bias": torch.randn(8), "pull_inhibition_strength": strength}
    unit = PushPullConv2d(3, 8, 3, trainable_alpha=True)
    module = nn.ModuleDict({"stem": unit}) if prefix else unit
    module.load_state_dict({prefix + name: value for name, value in old.items()})
    assert torch.equal(unit.weight, old["push_conv.weight"])
    assert torch.equal(unit.bias, old["bias"])
    assert torch.equal(unit.alpha, strength.flatten().expand(8))
    module.load_state_dict({prefix + name: value.clone() for name, value in old.items()}, assign=True)
    with torch.no_grad():
        unit.alpha.mul_(2)
    assert torch.equal(unit.alpha, 2 * strength.flatten().expand(8))
    assert "push_conv.weight" in old


@pytest.mark.parametrize("assign", [False, True])
def test_a_fixed_research_strength_is_that_of_the_unit_which_loads(assign):
    """Their state dict lacks it; a learned one must be there."""
    old = {"push_conv.weight": torch.randn(8, 3, 3, 3), "bias": torch.randn(8)}
    unit = PushPullConv2d(3, 8, 3, alpha=0.5)
    unit.load_state_dict(old, assign=assign)
    assert torch.equal(unit.weight, old["push_conv.weight"])
    assert torch.equal(unit.alpha, torch.full((8,), 0.5))
    with pytest.raises(RuntimeError, match=r"Missing key.*alpha"):
        PushPullConv2d(3, 8, 3, trainable_alpha=True).load_state_dict(old)
    with pytest.raises(RuntimeError, match=r"Missing key.*alpha"):
        unit.load_state_dict({"weight": old["push_conv.weight"], "bias": old["bias"]})


def test_a_research_strength_of_another_width_does_not_load():
    old = {"push_conv.weight": torch.randn(8, 3, 3, 3), "pull_inhibition_strength": torch.rand(5)}
    with pytest.raises(RuntimeError, match="size mismatch for alpha"):
        PushPullConv2d(3, 8, 3, bias=False).load_state_dict(old)


def test_copies_pickles_and_saved_modules_compute_the_same():
    unit, x = PushPullConv2d(3, 8, 3, alpha=0.5, padding=1), torch.randn(2, 3, 8, 8)
    buffer = io.BytesIO()
    torch.save(unit, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(unit), pickle.loads(pickle.dumps(unit)), torch.load(buffer, weights_only=False)]
    other = PushPullConv2d(3, 8, 3, alpha=0.1, padding=1)
    other.load_state_dict(unit.state_dict())
    for twin in [*copies, other]:
        assert torch.equal(twin(x), unit(x))
        assert twin.weight.data_ptr() != unit.weight.data_ptr()


def test_repr_describes_the_unit():
    assert repr(PushPullConv2d(3, 8, 3, padding=1, avg_kernel_size=5, alpha=0.5)) == (
        "PushPullConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), avg_kernel_size=5, alpha=0.5)"
    )
    assert "alpha=trainable" in repr(PushPullConv2d(3, 8, 3, trainable_alpha=True))


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Linear(3, 4), "conv is a Linear; allowed: a plain torch.nn.Conv2d"),
        (PushPullConv2d(3, 4, 3, avg_kernel_size=5), "conv is a PushPullConv2d; allowed: a plain"),
        (Conv2dSame(3, 4, 3, stride=2), "conv is a Conv2dSame; allowed: a plain"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "conv is a ParametrizedConv2d; allowed: a plain"),
        (prune.identity(nn.Conv2d(3, 4, 3), "weight"), "conv's weight is no parameter but made from others; remove"),
    ],
)
@pytest.mark.parametrize("layer", [PushPullConv2d, BlurredConv2d])
def test_a_convolution_that_may_compute_something_else_is_refused(layer, conv, message):
    with pytest.raises(InputError, match=message):
        layer.from_conv2d(conv)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"avg_kernel_size": 2}, "avg_kernel_size is 2"),
        ({"avg_kernel_size": -3}, "avg_kernel_size is -3"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"alpha": [1.0, float("nan"), 0.0, 0.0]}, "alpha is .*nan"),
        ({"alpha": torch.rand(3)}, r"alpha has shape \[3\]; allowed: a number or \[4\]"),
        ({"alpha": torch.rand(1, 4)}, r"alpha has shape \[1, 4\]"),
    ],
)
def test_bad_input_is_named(settings, message):
    for build in (
        lambda: PushPullConv2d(3, 4, 3, **settings),
        lambda: PushPullConv2d.from_conv2d(nn.Conv2d(3, 4, 3), **settings),
    ):
        with pytest.raises(InputError, match=message) as error:
            build()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("trainable_alpha", [False, True])
def test_compiles_to_one_graph(trainable_alpha):
    torch.compiler.reset()
    unit = PushPullConv2d(3, 8, 3, stride=2, padding=1, trainable_alpha=trainable_alpha)
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    for size in (16, 18, 21):
        x = torch.randn(2, 3, size, size)
        torch.testing.assert_close(compiled(x), unit(x))
        compiled_gradient, gradient = (
            torch.autograd.grad(form(x).square().sum(), unit.weight)[0] for form in (compiled, unit)
        )
        torch.testing.assert_close(compiled_gradient, gradient)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(x), unit(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_without_gradients_it_computes_the_same_in_place(layout):
    torch.compiler.reset()
    unit = PushPullConv2d(3, 8, 5, stride=2, padding=2, avg_kernel_size=5).to(memory_format=layout)
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 20, 16).contiguous(memory_format=layout)
    with torch.no_grad():
        response = compiled(x)
    torch.testing.assert_close(response, unit(x))
    assert response.stride() == unit(x).stride()


@pytest.mark.slow
def test_compiles_with_the_default_backend():
    torch.compiler.reset()
    unit, x = PushPullConv2d(3, 8, 7, stride=2, padding=3), torch.randn(2, 3, 32, 32)
    compiled = torch.compile(unit, fullgraph=True)
    torch.testing.assert_close(compiled(x), unit(x), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), unit(x), atol=1e-5, rtol=1e-4)
    compiled_gradient, gradient = (
        torch.autograd.grad(form(x).square().sum(), unit.weight)[0] for form in (compiled, unit)
    )
    torch.testing.assert_close(compiled_gradient, gradient, atol=1e-3, rtol=1e-4)


def test_exports_with_dynamic_batch_and_size():
    unit = PushPullConv2d(3, 8, 3, stride=2, padding=1, alpha=0.5).eval()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    exported = torch.export.export(unit, (torch.randn(2, 3, 16, 16),), dynamic_shapes={"input": sizes}).module()
    x = torch.randn(5, 3, 20, 9)
    torch.testing.assert_close(exported(x), unit(x))


def _train_a_step_in_parallel(rank, world_size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    try:
        torch.manual_seed(0)
        unit = PushPullConv2d(3, 4, 3, trainable_alpha=True)
        images = torch.randn(4, 3, 8, 8)
        alone = copy.deepcopy(unit)
        alone(images).square().mean().backward()
        parallel = DistributedDataParallel(unit)
        parallel(images[rank::world_size]).square().mean().backward()
        for mine, expected in zip(unit.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, expected.grad, atol=1e-6, rtol=1e-4)
    finally:
        dist.destroy_process_group()


def test_distributed_data_parallel_in_one_process(tmp_path):
    _train_a_step_in_parallel(0, 1, tmp_path)


def _train_a_step_and_leave(*arguments):
    _train_a_step_in_parallel(*arguments)
    os._exit(0)  # now and then PyTorch's own threads abort a process that is shut down in order


@pytest.mark.slow
def test_distributed_data_parallel_in_two_processes(tmp_path):
    mp.spawn(_train_a_step_and_leave, args=(2, tmp_path), nprocs=2)
