# SPDX-License-Identifier: Apache-2.0
"""How much memory and time a child process gets."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

SECONDS = 3600.0
SHARE = 0.75
"""Of the machine's memory; the rest keeps the machine alive."""

_SPARE = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child process may use.

    Attributes:
        memory: bytes of data, all libraries included (torch and onnxruntime alone take about
            0.8 GB); None for no limit.
        seconds: wall-clock time, and as much processor time on each core; None for no limit.
    """

    memory: int | None = None
    seconds: float | None = None

    def __bool__(self) -> bool:
        return self.memory is not None or self.seconds is not None


def default_limits() -> Limits:
    """Return the limits that count where none are given: an hour, three quarters of the memory."""
    memory = None
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Limits(memory, SECONDS)


def limit_this_process(limits: Limits, *, gpu: bool) -> None:
    """Let the kernel hold this process to `limits`, as far as it can.

    The memory limit counts private data (RLIMIT_DATA, Linux), not address space, of which libraries
    reserve much more than they use. With a GPU it is left to the parent, since CUDA maps the
    card's memory as well.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system: the parent's clock is all there is
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory is not None and not gpu:
        _lower(resource.RLIMIT_DATA, limits.memory)
    if limits.seconds is not None:
        _lower(resource.RLIMIT_CPU, int(limits.seconds * (os.cpu_count() or 1)) + _SPARE)


def gpu_present() -> bool:
    """Return whether this machine has an NVIDIA card, without loading CUDA."""
    return Path("/dev/nvidia0").exists()


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds, 0 where that cannot be read."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _lower(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
