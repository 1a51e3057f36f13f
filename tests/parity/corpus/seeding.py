# SPDX-License-Identifier: Apache-2.0
"""Weights that leave nothing trivially zero or one, and outputs that neither vanish nor explode."""

from __future__ import annotations

import re
import zlib

import torch
from torch import nn

_GAINS = re.compile(r"gain|gamma|scale|alpha|lambda|tau|weight", re.IGNORECASE)
_SMALL = 2e-3
"""LayerScale starts at 1e-4 to 1e-6: its blocks would add nothing that a check could see."""


def seed(name: str) -> None:
    """Make what follows depend on the entry's name only."""
    torch.manual_seed(zlib.crc32(name.encode()))


def stir(model: nn.Module, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """Make constant parameters vary, then set batch statistics to what `example` gives.

    The libraries' own initialisation of everything else is kept. Statistics are then moved a
    little, so that a normalisation never just undoes itself.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            first = parameter.flatten()[0]
            if not bool((parameter == first).all()):
                continue
            value = float(first)
            if parameter.numel() > 1 or value == 0:
                if value == 0 and not _GAINS.search(name.rsplit(".", 1)[-1]):
                    parameter.normal_(0, 0.05)
                elif abs(value) <= _SMALL or value == 1:
                    parameter.uniform_(0.5, 1.5)
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.running_var is not None]
    if norms:
        _calibrate(model, norms, example)
    return model.eval()


def _calibrate(model: nn.Module, norms: list[nn.Module], example: tuple[torch.Tensor, ...]) -> None:
    """Set each layer's statistics when `example` reaches it, so that the next sees the result.

    Statistics taken first and moved afterwards would let deep networks drift exponentially.
    """

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].detach().float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        # The mean stays: without it only the small differences between images would be left, to
        # be blown up again by each layer, rounding errors with them.
        variance = variance + mean.square()
        # A channel that hardly varies over so few images would blow rounding errors up.
        variance = variance.clamp(min=max(0.1 * float(variance.mean()), 1e-4))
        norm.running_var.copy_(variance * torch.empty_like(variance).uniform_(0.7, 1.4))
        norm.running_mean.copy_(0.1 * variance.sqrt() * torch.randn_like(variance))

    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    with torch.no_grad():
        model(*example)
    for hook in hooks:
        hook.remove()
