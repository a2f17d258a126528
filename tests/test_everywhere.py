"""The unit inside the rest of PyTorch. Compilation, export and DistributedDataParallel are in ``test_layers.py``."""

import copy
import functools
import io
import os
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

from pushpull_conv.comparison_layers import (
    BlurPool2d,
    BlurPoolConv2d,
    BlurredConv2d,
    SurroundSuppressedConv2d,
    UpsampledPullConv2d,
    VariedPushPullConv2d,
)
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models.timm_convs import TimmPushPullConv2d


def network(**settings):
    torch.manual_seed(0)
    settings = {"stride": 2, "padding": 1, "trainable_alpha": True} | settings
    return nn.Sequential(PushPullConv2d(3, 8, 3, **settings), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def test_compiles_to_one_graph_of_dynamic_shape():
    torch.compiler.reset()
    model = network()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 16, 12), (3, 3, 21, 17), (5, 3, 9, 30)):
        x = torch.randn(shape)
        ours, theirs = compiled(x), model(x)
        torch.testing.assert_close(ours, theirs)
        for mine, expected in zip(*(gradients(model, y.square().sum()) for y in (ours, theirs)), strict=True):
            torch.testing.assert_close(mine, expected)
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"avg_kernel_size": 5, "padding": 2, "padding_mode": "reflect"}])
def test_onnx_with_dynamic_batch_and_size(settings):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = network(**settings).eval()
    dynamic = {0: "batch", 2: "height", 3: "width"}
    program = torch.onnx.export(
        model, (torch.randn(2, 3, 16, 20),), dynamo=True, dynamic_shapes=(dynamic,), verbose=False
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for shape in ((1, 3, 16, 20), (3, 3, 33, 18)):
        x = torch.randn(shape)
        (response,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(response, model(x).detach().numpy(), atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "build",
    [
        functools.partial(PushPullConv2d, 3, 8, 3, padding=1),
        functools.partial(PushPullConv2d, 3, 9, 3, padding=1, groups=3, avg_kernel_size=0),
        lambda: TimmPushPullConv2d.from_conv2d(Conv2dSame(3, 8, 3, stride=2)),
        functools.partial(BlurredConv2d, 3, 8, 3, padding=1, stride=2),
        functools.partial(BlurPoolConv2d, 3, 8, 3, padding=1),
        functools.partial(BlurPool2d, 3),
        functools.partial(VariedPushPullConv2d, 3, 8, 3, padding=1, blur_kernel_size=3),
        functools.partial(UpsampledPullConv2d, 3, 8, 3, padding=1),
        functools.partial(SurroundSuppressedConv2d, 3, 8, 3, padding=1),
    ],
)
def test_the_onnx_exporter_that_was_the_default_before_pytorch_2_9(build):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    unit = build().eval()
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch", 2: "height", 3: "width"}}}
    file = io.BytesIO()
    torch.onnx.export(unit, (torch.randn(2, 3, 16, 20),), file, dynamo=False, **names)
    x = torch.randn(3, 3, 33, 18)
    (response,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(response, unit(x).detach().numpy(), atol=1e-4)


@pytest.mark.filterwarnings("error", "ignore:.torch.jit.trace:FutureWarning")
def test_a_trace_serves_other_sizes():
    for model in (network(), TimmPushPullConv2d.from_conv2d(Conv2dSame(3, 8, 3, stride=2))):
        traced = torch.jit.trace(model.eval(), torch.randn(2, 3, 16, 16))
        for shape in ((1, 3, 21, 17), (1, 3, 18, 22)):
            x = torch.randn(shape)
            torch.testing.assert_close(traced(x), model(x))


def test_a_symbolic_trace_has_the_unit_as_one_node():
    model, x = network(), torch.randn(2, 3, 16, 16)
    traced = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(model)))
    assert sum(node.op == "call_function" for node in traced.graph.nodes) == 1
    assert {name for name, _ in traced.named_parameters()} == {name for name, _ in model.named_parameters()}
    torch.testing.assert_close(traced(x), model(x))
    features = create_feature_extractor(model, ["0.push_pull_conv2d"])(x)
    torch.testing.assert_close(features["0.push_pull_conv2d"], model[0](x))


def test_an_exported_graph_needs_only_pytorch():
    program = torch.export.export(network().eval(), (torch.randn(2, 3, 16, 16),))
    assert "pushpull_conv" not in str(program.graph)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trains_under_autocast(dtype):
    model, x = network(), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=dtype):
        half = model(x).float().square().mean()
    for ours, theirs in zip(gradients(model, half), gradients(model, model(x).square().mean()), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= 0.1 * theirs.norm() + 1e-3


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    model, x = network(), torch.randn(2, 3, 16, 16, requires_grad=True)
    plain, saved = model[0](x), checkpoint(model[0], x, use_reentrant=reentrant)
    wanted = [x, *model[0].parameters()]
    plain.square().sum().backward()
    expected = [value.grad.clone() for value in wanted]
    for value in wanted:
        value.grad = None
    saved.square().sum().backward()
    for value, theirs in zip(wanted, expected, strict=True):
        torch.testing.assert_close(value.grad, theirs)


def test_functional_call_under_grad_and_vmap():
    unit, x = PushPullConv2d(3, 4, 3, trainable_alpha=True), torch.randn(5, 3, 8, 8)
    parameters = dict(unit.named_parameters())

    def loss(parameters, image):
        return torch.func.functional_call(unit, parameters, image).square().sum()

    per_image = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    unit(x).square().sum().backward()
    for name, parameter in unit.named_parameters():
        torch.testing.assert_close(per_image[name].sum(0), parameter.grad, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("transformed", ["jvp", "grad", "vmap"])
def test_a_compiled_transformation_is_the_transformation(transformed):
    """In one graph; the operator itself has a gradient, but no forward derivative."""
    unit = PushPullConv2d(3, 4, 3, alpha=0.7).double().requires_grad_(False)
    x, tangent = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    call = {
        "jvp": lambda x: torch.func.jvp(unit, (x,), (tangent,))[1],
        "grad": torch.func.grad(lambda x: unit(x).square().sum()),
        "vmap": torch.func.vmap(lambda x: unit(x[None])[0]),
    }[transformed]
    torch.testing.assert_close(torch.compile(call, backend="aot_eager", fullgraph=True)(x), call(x))


def test_a_second_derivative_of_the_bias_alone():
    unit = PushPullConv2d(3, 4, 3)
    unit.weight.requires_grad_(False)
    (grad,) = torch.autograd.grad(unit(torch.randn(1, 3, 8, 8)).square().sum(), unit.bias, create_graph=True)
    grad.sum().backward()
    torch.testing.assert_close(unit.bias.grad, torch.full((4,), 2.0 * 36))


def test_a_stride_of_one_number_in_a_tuple():
    plain, unit = nn.Conv2d(3, 4, 3, stride=(2,)), PushPullConv2d(3, 4, 3, stride=(2,))
    assert unit(torch.randn(1, 3, 8, 8)).shape == plain(torch.randn(1, 3, 8, 8)).shape


def test_deterministic_mode():
    model, x = network(), torch.randn(4, 3, 16, 16)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [[model[0](x), *gradients(model[0], model[0](x).square().sum())] for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


class FakeQuantisation(nn.Module):
    """Eight-bit weights with straight-through gradients."""

    def forward(self, weight):
        scale = (weight.detach().abs().max() / 127).reshape(1)
        return torch.fake_quantize_per_tensor_affine(weight, scale, torch.zeros(1, dtype=torch.int32), -128, 127)


def test_quantisation_aware_training_of_the_weights():
    unit, x = PushPullConv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    parametrize.register_parametrization(unit, "weight", FakeQuantisation())
    quantised = unit.weight.detach()
    assert len(quantised.unique()) <= 255
    twin = PushPullConv2d(3, 4, 3)
    twin.load_state_dict({"weight": quantised, "bias": unit.bias, "alpha": unit.alpha})
    torch.testing.assert_close(unit(x), twin(x))
    unit(x).square().sum().backward()
    assert unit.parametrizations.weight.original.grad.abs().sum() > 0


def _train_a_sharded_step(rank, world_size, folder):
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    try:
        torch.manual_seed(0)
        unit, images = PushPullConv2d(3, 4, 3, trainable_alpha=True), torch.randn(4, 3, 8, 8)
        alone = copy.deepcopy(unit)
        alone(images).square().mean().backward()
        mesh = dist.init_device_mesh("cpu", (world_size,))
        fully_shard(unit, mesh=mesh)
        unit(images[rank::world_size]).square().mean().backward()
        for mine, expected in zip(unit.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.full_tensor(), expected.grad, atol=1e-6, rtol=1e-4)
    finally:
        dist.destroy_process_group()
    os._exit(0)  # now and then PyTorch's own threads abort a process that is shut down in order


@pytest.mark.slow
def test_fully_sharded_data_parallel_in_two_processes(tmp_path):
    mp.spawn(_train_a_sharded_step, args=(2, tmp_path), nprocs=2)
