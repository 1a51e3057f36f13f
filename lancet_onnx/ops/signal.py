# SPDX-License-Identifier: Apache-2.0
"""Fourier transforms, mel weights, determinants; complex numbers are a last axis of two."""

from __future__ import annotations

import math

import numpy as np
import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.ops.host import (
    dtype_of,
    host_floats,
    host_int,
    meet,
    positive_axis,
    require_float,
)
from lancet_onnx.ops.registry import op


def _complex(signal: torch.Tensor) -> torch.Tensor:
    """Return the numbers that the last axis holds: real ones of one part, complex ones of two.

    In double precision, because the sums of a transform cancel.
    """
    parts = signal.shape[-1]
    if parts not in (1, 2):
        raise UnsupportedError(f"a signal with {parts} parts to a number")
    require_float(signal, "a Fourier transform")
    data = signal.to(torch.float64)
    return data[..., 0] if parts == 1 else torch.complex(data[..., 0], data[..., 1])


def _dft(
    input: torch.Tensor, length: int | None, at: int, inverse: bool, onesided: bool
) -> torch.Tensor:
    data = _complex(input)
    if inverse and onesided:
        count = 2 * (input.shape[at] - 1) if length is None else length
        real: torch.Tensor = torch.fft.irfft(data, count, at)
        return real.unsqueeze(-1).to(input.dtype)
    count = input.shape[at] if length is None else length
    result = torch.fft.ifft(data, count, at) if inverse else torch.fft.fft(data, count, at)
    if onesided:
        result = result.narrow(at, 0, count // 2 + 1)
    return torch.view_as_real(result.resolve_conj()).to(input.dtype)


@op("DFT", 17)
def dft_17(
    input: torch.Tensor,
    dft_length: torch.Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> torch.Tensor:
    """DFT (17): the axis is an attribute."""
    length = None if dft_length is None else host_int(dft_length, "the length of DFT")
    at = positive_axis(axis, input.ndim)
    return _dft(input, length, at, bool(inverse), bool(onesided))


@op("DFT", 20)
def dft(
    input: torch.Tensor,
    dft_length: torch.Tensor | None = None,
    axis: torch.Tensor | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> torch.Tensor:
    """DFT (20): the axis is an input."""
    length = None if dft_length is None else host_int(dft_length, "the length of DFT")
    number = -2 if axis is None else host_int(axis, "the axis of DFT")
    at = positive_axis(number, input.ndim)
    return _dft(input, length, at, bool(inverse), bool(onesided))


@op("STFT", 17)
def stft(
    signal: torch.Tensor,
    frame_step: torch.Tensor,
    window: torch.Tensor | None = None,
    frame_length: torch.Tensor | None = None,
    *,
    onesided: int = 1,
) -> torch.Tensor:
    """STFT (17): (batch, length, parts); frames that do not fit are left out."""
    step = host_int(frame_step, "the step of STFT")
    if frame_length is not None:
        length = host_int(frame_length, "the frame of STFT")
    else:
        length = signal.shape[1] if window is None else window.shape[0]
    if window is not None and window.shape[0] != length:
        raise UnsupportedError(f"STFT of frames of {length} with a window of {window.shape[0]}")
    data = _complex(signal)
    starts = torch.arange(0, signal.shape[1] - length + 1, step, device=signal.device)
    places = starts.reshape(-1, 1) + torch.arange(length, device=signal.device)
    frames = torch.index_select(data, 1, places.reshape(-1))
    frames = frames.reshape(data.shape[0], len(starts), length)
    if window is not None:
        frames, weights = meet(frames, window)
        frames = frames * weights
    result = torch.fft.fft(frames, dim=-1)
    if onesided:
        result = result.narrow(-1, 0, length // 2 + 1)
    return torch.view_as_real(result).to(signal.dtype)


@op("MelWeightMatrix", 17, host=(3, 4))
def mel_weight_matrix(
    num_mel_bins: torch.Tensor,
    dft_length: torch.Tensor,
    sample_rate: torch.Tensor,
    lower_edge_hertz: torch.Tensor,
    upper_edge_hertz: torch.Tensor,
    *,
    output_datatype: int = 1,
) -> torch.Tensor:
    """MelWeightMatrix (17): (dft_length / 2 + 1, num_mel_bins), on the host."""
    bins = host_int(num_mel_bins, "the bins of MelWeightMatrix")
    length = host_int(dft_length, "the length of MelWeightMatrix")
    rate = host_int(sample_rate, "the rate of MelWeightMatrix")
    (lower,) = host_floats(lower_edge_hertz, "the edges of MelWeightMatrix")
    (upper,) = host_floats(upper_edge_hertz, "the edges of MelWeightMatrix")
    low, high = (2595 * math.log10(1 + edge / 700) for edge in (lower, upper))
    mels = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * (10 ** (mels / 2595) - 1)
    places = ((length + 1) * hertz // rate).astype(np.int64).tolist()
    result = np.zeros((length // 2 + 1, bins))
    for column, (left, peak, right) in enumerate(zip(places, places[1:], places[2:], strict=False)):
        if left == peak:
            result[peak, column] = 1
        for row in range(left, peak + 1) if left < peak else ():
            result[row, column] = (row - left) / (peak - left)
        for row in range(peak, right):
            result[row, column] = (right - row) / (right - peak)
    return torch.from_numpy(result).to(dtype_of(output_datatype))


@op("Det", 11, 22)
def det(X: torch.Tensor) -> torch.Tensor:
    """Det (11, 22) of square matrices on the last two axes."""
    require_float(X, "Det")
    wide = X.to(torch.float32) if X.dtype in (torch.float16, torch.bfloat16) else X
    result: torch.Tensor = torch.linalg.det(wide)
    return result.to(X.dtype)
