# SPDX-License-Identifier: Apache-2.0
"""Small torch classifiers of kinds that the vision libraries do not have, or have only large."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class ConvNet(nn.Module):
    """Residual block with a strided shortcut, BatchNorm, squeeze and excitation, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.SiLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=3),
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1)
        )
        self.shortcut = nn.Conv2d(8, 12, 1, 2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.hardswish(self.stem(x)), 3, 2, 1)
        y = self.body(x)
        y = y * self.squeeze(y).sigmoid()
        return self.head(torch.relu(y + self.shortcut(x)).mean((2, 3)))


class TinyVit(nn.Module):
    """Patches, a class token, positions, pre-norm attention (fused or written out), GELU."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "n1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "n2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        b, n, c = x.shape
        for block in self.blocks:
            q, k, v = (
                block["qkv"](block["n1"](x))
                .reshape(b, n, 3, self.heads, c // self.heads)
                .permute(2, 0, 3, 1, 4)
                .unbind(0)
            )
            if self.fused:
                y = F.scaled_dot_product_attention(q, k, v)
            else:
                y = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
            y = y.transpose(1, 2).reshape(b, n, c)
            x = x + block["out"](y)
            x = x + block["down"](F.gelu(block["up"](block["n2"](x))))
        return self.head(self.norm(x)[:, 0])


class BertTiny(nn.Module):
    """BERT-tiny's shape (2 layers, 128 wide, 2 heads): ids and mask in, embeddings, pooler."""

    def __init__(self, vocabulary: int = 1000, width: int = 128, heads: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(64, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {name: nn.Linear(width, width) for name in ("query", "key", "value", "dense")}
                | {
                    "n1": nn.LayerNorm(width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                    "n2": nn.LayerNorm(width),
                }
            )
            for _ in range(2)
        )
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        b, n = ids.shape
        x = self.words(ids) + self.places(torch.arange(n)) + self.types(torch.zeros_like(ids))
        x = self.norm(x)
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            q, k, v = (
                layer[name](x).view(b, n, self.heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).softmax(-1)
            y = (weights @ v).transpose(1, 2).reshape(b, n, -1)
            x = layer["n1"](x + layer["dense"](y))
            x = layer["n2"](x + layer["down"](F.gelu(layer["up"](x))))
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class KeywordRnn(nn.Module):
    """Keyword spotting: 1-D convolution over features, a recurrent net, the last step's scores."""

    def __init__(self, kind: str, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.front = nn.Conv1d(10, 12, 3, padding=1)
        maker = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.cell = maker(12, 16, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 if bidirectional else 16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.cell(F.relu(self.front(x)).transpose(1, 2))
        return self.head(y[:, -1] + y.mean(1))


class TextRnn(nn.Module):
    """Word ids to a sentiment: embedding, GRU from a zero state, maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 12)
        self.cell = nn.GRU(12, 10, batch_first=True)
        self.head = nn.Linear(10, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y, _ = self.cell(self.words(ids))
        return self.head(y.max(1).values)


class StateSpace(nn.Module):
    """A selective state-space layer (input-dependent step, B, C; the scan unrolled) over tokens."""

    def __init__(self, width: int = 12, state: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.local = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.step = nn.Linear(width, width)
        self.b, self.c = nn.Linear(width, state), nn.Linear(width, state)
        self.a = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(width, 1))
        self.skip = nn.Parameter(torch.rand(width) + 0.5)
        self.gate = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2)
        u = F.silu(self.local(x)[..., : x.shape[-1]]).transpose(1, 2)
        step = F.softplus(self.step(u))
        decay = torch.exp(step.unsqueeze(-1) * -self.a.exp())
        drive = (step * u).unsqueeze(-1) * self.b(u).unsqueeze(2)
        h = torch.zeros_like(drive[:, 0])
        out = []
        for t in range(u.shape[1]):
            h = decay[:, t] * h + drive[:, t]
            out.append((h * self.c(u)[:, t].unsqueeze(1)).sum(-1))
        y = torch.stack(out, 1) + u * self.skip
        return self.head(self.norm(y * F.silu(self.gate(u))).mean(1))


class LinearAttention(nn.Module):
    """Attention without softmax (elu + 1 features, cumulative sums), rotary positions, einsum."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.head = nn.Linear(width, 5)
        angles = torch.arange(16.0)[:, None] * 100 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def _turn(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1).flatten(
            -2
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k = F.elu(self._turn(self.q(x))) + 1, F.elu(self._turn(self.k(x))) + 1
        memory = torch.einsum("bnd,bne->bnde", k, self.v(x)).cumsum(1)
        total = torch.einsum("bnd,bnd->bn", q, k.cumsum(1)).unsqueeze(-1)
        return self.head((torch.einsum("bnd,bnde->bne", q, memory) / (total + 1e-6)).mean(1))


class Experts(nn.Module):
    """A mixture of experts: top-2 gates, scattered back, experts as one batched product."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(48, 16)
        self.gate = nn.Linear(16, 4)
        self.up = nn.Parameter(torch.randn(4, 16, 24) * 0.2)
        self.down = nn.Parameter(torch.randn(4, 24, 16) * 0.2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.mish(self.front(x))
        value, index = self.gate(x).topk(2, -1)
        gates = torch.zeros(x.shape[0], 4).scatter(1, index, value.softmax(-1))
        y = torch.einsum("bi,eio->beo", x, self.up).relu()
        y = torch.einsum("beo,eod->bed", y, self.down)
        return self.head((gates.unsqueeze(-1) * y).sum(1))


class UpDown(nn.Module):
    """Down and up again: ConvTranspose, resizing, pixel shuffle, Group- and InstanceNorm, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1)
        self.inorm = nn.InstanceNorm2d(6, affine=True)
        self.act = nn.PReLU(6)
        self.wide = nn.Conv2d(6, 12, 3, padding=1, padding_mode="reflect")
        self.mix = nn.Conv2d(12, 8, 3, padding=2, dilation=2)
        self.head = nn.Linear(8 + 3 + 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.norm(self.down(x)), 0.1)
        z = self.act(self.inorm(self.up(y)))
        z = F.pixel_shuffle(self.wide(z), 2)
        z = torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), z], 1)
        z = F.pixel_unshuffle(F.avg_pool2d(z, 2), 2)[:, :12]
        z = F.softsign(self.mix(z))
        near = F.interpolate(y, size=(16, 16), mode="nearest")
        return self.head(
            torch.cat(
                [z.amax((2, 3)), F.adaptive_avg_pool2d(x, 1).flatten(1), near.mean((2, 3))], 1
            )
        )


class Volume(nn.Module):
    """3-D convolutions and pooling over a short video."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(3, 6, 3, padding=1), nn.Conv3d(6, 8, (1, 3, 3), (1, 2, 2))
        self.norm = nn.BatchNorm3d(6)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool3d(F.elu(self.norm(self.a(x))), 2)
        return F.log_softmax(self.head(F.adaptive_avg_pool3d(F.celu(self.b(x)), 1).flatten(1)), 1)


class Encoder(nn.Module):
    """nn.TransformerEncoder and nn.MultiheadAttention over a sequence of features."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(10, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.query = nn.Parameter(torch.randn(1, 1, 16))
        self.pool = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.front(x))
        y, _ = self.pool(self.query.expand(x.shape[0], -1, -1), x, x)
        return self.head(y[:, 0])


class TwoInputs(nn.Module):
    """An image and a row of numbers, joined late; two heads over tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.row = nn.Conv2d(3, 8, 3, 2), nn.Linear(6, 8)
        self.shared, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, image: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        a = self.shared(F.relu(self.image(image)).mean((2, 3)))
        b = self.shared(torch.tanh(self.row(row)))
        return self.head(a * torch.sigmoid(b) + F.normalize(b, dim=1))


class Branching(nn.Module):
    """torch.cond on the brightness of the batch: an If whose branches hold weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cond(x.mean() > 0, lambda v: self.a(v).relu(), lambda v: self.b(v).tanh(), (x,))
        return self.head(y)


class Repeating(nn.Module):
    """A loop that the legacy exporter keeps as Loop when the module is scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.head = nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        for _ in range(int(times[0])):
            x = torch.tanh(self.step(x)) + x
        return self.head(x)


class Mlp(nn.Module):
    """Linear layers with the activations that nobody else here has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(9))
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        acts = (
            F.selu, F.softplus, F.hardsigmoid, F.hardtanh, F.logsigmoid, F.relu6,
            F.tanhshrink, lambda v: F.gelu(v, approximate="tanh"), lambda v: F.glu(v.repeat(1, 2)),
        )  # fmt: skip
        for layer, act in zip(self.layers, acts, strict=True):
            x = act(layer(x)) + 0.5 * x
        return self.head(x).softmax(1)
