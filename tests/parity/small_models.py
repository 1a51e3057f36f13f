# SPDX-License-Identifier: Apache-2.0
"""Small networks as torch's two exporters and onnxruntime's optimiser write them.

Each has some hundred to some thousand weights and every kind of layer that a classifier file may
hold; `small_models_handmade` has what no exporter of torch writes.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

Feeds = dict[str, np.ndarray]
Built = tuple[onnx.ModelProto, Feeds]
Builder = Callable[[], Built]

IMAGE = (2, 3, 8, 8)
TOKENS = (2, 5, 8)


class Sum(nn.Module):
    """x + inner(x), or shortcut(x) + inner(x)."""

    def __init__(self, *inner: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.inner(x)


class Apply(nn.Module):
    """A function of tensors as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def conv_bn() -> nn.Module:
    body = [nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*body, *head(6))


def separable() -> nn.Module:
    depthwise = nn.Conv2d(3, 6, 3, padding=1, groups=3)
    return nn.Sequential(depthwise, nn.SiLU(), nn.Conv2d(6, 8, 1), nn.ReLU6(), *head(8))


def grouped() -> nn.Module:
    inner = nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, padding_mode="reflect")
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), inner, nn.LeakyReLU(0.2), *head(8))


def transposed() -> nn.Module:
    up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ELU(), up, nn.Softplus(), *head(4))


def residual() -> nn.Module:
    body = [nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
    block = Sum(*body, shortcut=nn.Conv2d(6, 8, 1, 2))
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), block, nn.ReLU(), *head(8))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1)
        )
        self.head = nn.Sequential(*head(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.conv(x))
        return self.head(x * functional.hardsigmoid(self.gate(x)))


def mlp() -> nn.Module:
    last = [nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 4), nn.LogSoftmax(1)]
    return nn.Sequential(nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), *last)


class Attend(nn.Module):
    """Self-attention of two heads, written out or as torch's own function."""

    def __init__(self, *, written_out: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.written_out = written_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        if self.written_out:
            y = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Vision(nn.Module):
    """Patches, class token, positions, one transformer block."""

    def __init__(self, *, written_out: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.block = nn.Sequential(
            Sum(nn.LayerNorm(8), Attend(written_out=written_out)),
            Sum(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.block(x))[:, 0])


def mixer() -> nn.Module:
    turn = Apply(lambda x: x.transpose(1, 2))
    across = Sum(nn.LayerNorm(8), turn, nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5), turn)
    within = Sum(nn.LayerNorm(8), nn.Linear(8, 6), nn.Mish(), nn.Linear(6, 8))
    return nn.Sequential(across, within, Apply(lambda x: x.mean(1)), nn.Linear(8, 4))


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.wide, self.back = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale, self.head = nn.Parameter(torch.rand(8)), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.back(functional.gelu(self.wide(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class StateSpace(nn.Module):
    """A linear recurrence solved by a cumulated sum, its decay learned."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate, self.leave = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 4)
        self.decay = nn.Parameter(torch.rand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(x.shape[1], dtype=x.dtype).unsqueeze(-1)
        falling = torch.exp(-functional.softplus(self.decay) * steps)
        state = torch.cumsum(self.enter(x) / falling, 1) * falling
        return self.leave((state * torch.sigmoid(self.gate(x))).amax(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.cell = kind(8, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Text(nn.Module):
    """Token and position tables, convolution over time, masked mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 6), nn.Embedding(7, 6)
        self.conv, self.head = nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        x = torch.tanh(self.conv(x.transpose(1, 2)))
        mask = (ids != 0).unsqueeze(1).to(x.dtype)
        return self.head((x * mask).sum(2) / mask.sum(2))


def image_norms() -> nn.Module:
    norms = [nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 1), nn.InstanceNorm2d(4, affine=True)]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *norms, nn.ELU(), *head(4))


def token_norms() -> nn.Module:
    norms = [nn.RMSNorm(8), nn.Linear(8, 6), nn.GELU("tanh"), nn.LayerNorm((5, 6))]
    return nn.Sequential(*norms, nn.Flatten(), nn.Linear(30, 4))


def activations() -> nn.Module:
    kinds = [nn.PReLU(6), nn.Hardswish(), nn.SELU(), nn.CELU(0.7), nn.Softsign(), nn.Hardtanh()]
    layers = [layer for kind in kinds for layer in (nn.Conv1d(6, 6, 1), kind)]
    return nn.Sequential(nn.Conv1d(5, 6, 3), *layers, nn.Flatten(), nn.Linear(36, 4))


class Pooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 4, 4)
        self.branches = nn.ModuleList(
            [
                nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                nn.AvgPool2d(3, 2, 1, count_include_pad=False),
                nn.AvgPool2d(2, ceil_mode=True),
                nn.LPPool2d(2, 2),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) + 1
        parts = [branch(x).amax((2, 3)) for branch in self.branches]
        return self.head(torch.cat(parts, 1))


def upsampling() -> nn.Module:
    smooth = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    decoder = [smooth, nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Upsample(scale_factor=2, mode="nearest")]
    cubic = nn.Upsample(size=(7, 9), mode="bicubic", align_corners=True)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), *decoder, nn.Conv2d(4, 3, 2, 2), cubic, *head(3))


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(2, 8, 3)) for _ in range(2))
        self.core = nn.Parameter(torch.randn(3, 3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.einsum("btc,hci->bthi", x, self.first)
        b = torch.einsum("btc,hcj->bthj", x.tanh(), self.second)
        return torch.einsum("bthi,bthj,ijo->bo", a, b, self.core) / 10


class Indexing(nn.Module):
    """Rows picked from a table, written over others, sorted and cut."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.row = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(2, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.table.index_put((torch.tensor([1, 4]),), self.row.exp())
        picked = table[torch.tensor([0, 1, 4, 5, 1])] * x
        best = picked.topk(3, dim=1).values
        order = torch.tensor([[[2], [0]]]).expand(x.shape[0], 2, 8)
        return self.head(best.gather(1, order).sum(1) + functional.pad(x[:, 1, 2:-1], (1, 2)))


def weight_normed() -> nn.Module:
    conv = parametrizations.weight_norm(nn.Conv2d(3, 5, 3))
    return nn.Sequential(
        conv, nn.ReLU(), *head(5)[:2], parametrizations.weight_norm(nn.Linear(5, 4))
    )


class Tied(nn.Module):
    """One layer used twice, and a decoder that is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.encode = nn.Linear(8, 8), nn.Linear(8, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.mix(torch.tanh(self.mix(x.mean(1)))))
        return torch.sigmoid(self.encode(x)) @ self.encode.weight


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 4, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(4, 4)
    )


def build(
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    dynamo: bool,
    opset: int,
    folding: bool = True,
    free: bool = False,
    words: int = 0,
) -> Built:
    """Export a module in evaluation mode.

    Args:
        module: its weights are what the caller's seed makes them.
        shape: of its input.
        dynamo: which of the two exporters.
        opset: what it writes.
        folding: let the older exporter compute with constants.
        free: let the older exporter leave the batch open.
        words: make the input integers, of this many kinds.
    """
    module.eval()
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (part.running_var, part.weight):
                tensor.data.uniform_(0.5, 2, generator=generator)
            for tensor in (part.running_mean, part.bias):
                tensor.data.normal_(generator=generator)
    x = torch.randn(shape, generator=generator)
    if words:
        x = torch.randint(0, words, shape, generator=generator)
    stream = io.BytesIO()
    rest = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset, "verbose": False}
    if not dynamo:
        rest |= {"do_constant_folding": folding, "training": torch.onnx.TrainingMode.PRESERVE}
        rest |= {"dynamic_axes": {"x": {0: "N"}}} if free else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), stream, dynamo=dynamo, **rest)
    return onnx.load_from_string(stream.getvalue()), {"x": x.numpy()}


def optimised(built: Built, *wanted: str) -> Built:
    """Return what onnxruntime's extended optimisation writes, which must hold these operators."""
    proto, feeds = built
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        result = onnx.load(path)
    assert {node.op_type for node in result.graph.node} >= set(wanted)
    return result, feeds


def exported(
    make: Callable[[], nn.Module], shape: tuple[int, ...] = IMAGE, **options: object
) -> Builder:
    def builder() -> Built:
        torch.manual_seed(0)
        return build(make(), shape, **options)

    return builder


OLD, NEW = {"dynamo": False}, {"dynamo": True}

EXPORTED: dict[str, Builder] = {
    "conv_bn": exported(conv_bn, **OLD, opset=13),
    "conv_bn_dynamo": exported(conv_bn, **NEW, opset=18),
    "depthwise": exported(separable, **NEW, opset=18),
    "grouped": exported(grouped, **OLD, opset=17),
    "transposed_conv": exported(transposed, **NEW, opset=20),
    "residual": exported(residual, **OLD, opset=11),
    "squeeze_excite": exported(SqueezeExcite, **OLD, opset=17),
    "mlp": exported(mlp, (3, 40), **OLD, opset=9),
    "mlp_newer": exported(mlp, (3, 40), **OLD, opset=13),
    "vit": exported(Vision, **OLD, opset=17),
    "vit_dynamo": exported(Vision, **NEW, opset=20),
    "vit_attention_op": exported(Vision, **NEW, opset=23),
    "mixer": exported(mixer, TOKENS, **NEW, opset=18),
    "convnext": exported(ConvNext, **OLD, opset=16),
    "state_space": exported(StateSpace, TOKENS, **OLD, opset=14),
    "lstm": exported(lambda: Recurrent(nn.LSTM, bidirectional=True), TOKENS, **OLD, opset=14),
    "lstm_dynamo": exported(lambda: Recurrent(nn.LSTM), TOKENS, **NEW, opset=20),
    "gru": exported(lambda: Recurrent(nn.GRU), TOKENS, **OLD, opset=17),
    "rnn": exported(lambda: Recurrent(nn.RNN, nonlinearity="relu"), TOKENS, **OLD, opset=12),
    "text": exported(Text, (3, 7), **NEW, opset=18, words=11),
    "image_norms": exported(image_norms, **OLD, opset=17),
    "group_norm_op": exported(image_norms, **NEW, opset=21),
    "token_norms": exported(token_norms, TOKENS, **NEW, opset=23),
    "activations": exported(activations, TOKENS, **OLD, opset=18),
    "pooling": exported(Pooling, **OLD, opset=17),
    "upsampling": exported(upsampling, **OLD, opset=13),
    "einsum": exported(Einsum, TOKENS, **OLD, opset=13),
    "indexing": exported(Indexing, TOKENS, **OLD, opset=17),
    "weight_norm": exported(weight_normed, **OLD, opset=17, folding=False),
    "tied": exported(Tied, TOKENS, **OLD, opset=17, folding=False),
    "volume": exported(volume, (2, 3, 4, 4, 4), **OLD, opset=15),
    "fused_conv": lambda: optimised(exported(residual, **OLD, opset=17)(), "FusedConv"),
    "fused_free": lambda: optimised(
        exported(lambda: Vision(written_out=True), **OLD, opset=14, free=True)(),
        *("BiasGelu", "FusedMatMul", "LayerNormalization"),
    ),
    "fused_norms": lambda: optimised(
        exported(lambda: Vision(written_out=True), **OLD, opset=17)(),
        *("FusedMatMul", "Gelu", "SkipLayerNormalization"),
    ),
}
