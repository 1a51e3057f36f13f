# SPDX-License-Identifier: Apache-2.0
"""Faults in every system call of a write: killed there, out of space, a broken disk, a short write.

    python tests/faults.py [--only apply]

Each run is a forked child under ptrace(2) that writes a small model. At one system call of it the
child is killed (signal 9), or the call fails instead of being made, or writes less than asked. Then
the folder is looked at: inputs as they were, and either the complete new files or none; after an
error, nothing of ours is left behind either. Prints how many points were tried; exit code 1 if
anything was wrong. Linux only; errors are injected on x86-64.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 - loaded for the forks
import numpy as np
from lancet_onnx_cli.app import _explain
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_opsetid

from lancet_onnx.api.patching import (
    apply_patch,
    compose_patches,
    diff_models,
    revert_patch,
    save_patch,
)
from lancet_onnx.model import writing
from lancet_onnx.model.contents import survey
from lancet_onnx.model.digests import PIECE
from lancet_onnx.model.write import applied
from lancet_onnx.patch import opened_patch

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "patches" / "v1"

_TRACEME, _SYSCALL, _GETREGS, _SETREGS, _SETOPTIONS = 0, 24, 12, 13, 0x4200
_GET_SYSCALL_INFO = 0x420E
_OPTIONS = 0x1 | 0x8 | 0x100000  # TRACESYSGOOD, TRACECLONE, EXITKILL
_WALL = 0x40000000
_ENTRY = 1

_CALLS = {
    "x86_64": {
        0: "read", 1: "write", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 8: "lseek",
        16: "ioctl", 17: "pread64", 18: "pwrite64", 21: "access", 74: "fsync", 75: "fdatasync",
        77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 217: "getdents64",
        221: "fadvise64", 257: "openat", 258: "mkdirat", 262: "newfstatat", 263: "unlinkat",
        264: "renameat", 285: "fallocate", 295: "preadv", 316: "renameat2",
    }
}.get(platform.machine(), {})  # fmt: skip
_READING = {"read", "stat", "fstat", "lstat", "lseek", "pread64", "access", "getdents64",
            "newfstatat", "preadv"}  # fmt: skip
_WRITING = {"write", "pwrite64"}
_CLEANING = {"unlink", "rmdir", "unlinkat", "close"}
"""Calls that tidy up or that nothing can be done about: if they fail, something may be left."""

NAMES = frozenset(_CALLS.values())

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """user_regs_struct of x86-64."""

    _names = (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss"
    )
    _names += " fs_base gs_base ds es fs gs"
    _fields_ = [(name, ctypes.c_ulonglong) for name in _names.split()]


class _Info(ctypes.Structure):
    """ptrace_syscall_info."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


def _ptrace(request: int, pid: int, address: int = 0, data: object = None) -> int:
    found = libc.ptrace(request, pid, address, data)
    if found == -1 and request != _GET_SYSCALL_INFO:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)


@dataclass(frozen=True)
class Fault:
    """What happens at which call: `kill`, `short`, or the name of an errno.

    To be killed, all calls of all threads count; otherwise those that have a name in `_CALLS`.
    """

    at: int
    kind: str


@dataclass(frozen=True)
class Outcome:
    """How the child ended: exit code or minus the signal, the calls it made, the fault's call."""

    code: int
    calls: tuple[str, ...]
    call: str


def run(work: Callable[[], None], fault: Fault | None) -> Outcome:
    """Run `work` in a traced child with a fault; without one, only note the calls."""
    child = os.fork()
    if child == 0:
        _child(work)
    os.waitpid(child, 0)
    _ptrace(_SETOPTIONS, child, 0, _OPTIONS)
    calls: list[str] = []
    failing: dict[int, int] = {}
    hit, code, named = "", 0, 0
    _ptrace(_SYSCALL, child)
    while True:
        pid, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                break
            continue
        stop, deliver = os.WSTOPSIG(status), 0
        if stop == signal.SIGTRAP | 0x80:
            info = _Info()
            _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
            if info.op == _ENTRY:
                calls.append(_CALLS.get(info.number, str(info.number)))
                named += info.number in _CALLS
                counted = len(calls) if fault and fault.kind == "kill" else named
                now = fault is not None and not hit and counted == fault.at + 1
                if fault is not None and now and (fault.kind == "kill" or calls[-1] in NAMES):
                    hit = calls[-1]
                    if fault.kind == "kill":
                        os.kill(child, signal.SIGKILL)
                    else:
                        _spoil(pid, fault.kind, failing)
            elif pid in failing:
                _answer(pid, -failing.pop(pid))
        elif stop not in (signal.SIGTRAP, signal.SIGSTOP):
            deliver = stop
        with suppress(ProcessLookupError):
            _ptrace(_SYSCALL, pid, 0, deliver)
    return Outcome(code, tuple(calls), hit)


def _child(work: Callable[[], None]) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        work()
    except Exception as error:
        os._exit(_explain(error))
    except BaseException:
        os._exit(70)
    os._exit(0)


def _spoil(pid: int, kind: str, failing: dict[int, int]) -> None:
    """Let the call that `pid` is about to make fail, or write only half."""
    registers = _Registers()
    _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers))
    if kind == "short":
        registers.rdx = max(registers.rdx // 2, 1)
    else:
        registers.orig_rax = 0xFFFFFFFFFFFFFFFF
        failing[pid] = getattr(errno, kind)
    _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))


def _answer(pid: int, result: int) -> None:
    registers = _Registers()
    _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers))
    registers.rax = result & 0xFFFFFFFFFFFFFFFF
    _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))


@dataclass(frozen=True)
class Scenario:
    """A write: `inputs` in a folder, what is done there, and the outputs that it makes.

    The last output is the commit point: once it is there, all are.
    """

    inputs: Mapping[str, Path]
    work: Callable[[], object]
    outputs: Mapping[str, bytes]
    before: Mapping[str, bytes]


def scenarios(scratch: Path) -> dict[str, Scenario]:
    """Return every write that the tool makes; what has to be made for them goes to `scratch`."""
    flip, outside = GOLDEN / "flip", GOLDEN / "external"
    plain = {
        "model.onnx": flip / "base" / "model.onnx",
        "fixed.onnx": flip / "result" / "model.onnx",
        "p": flip / "patch.lancet.safetensors",
    }
    data = {
        **{f"in/{n}": outside / "base" / n for n in ("model.onnx", "first.bin", "second.bin")},
        "p": outside / "patch.lancet.safetensors",
    }
    model, fixed, patch = Path("model.onnx"), Path("fixed.onnx"), Path("p")
    whole = plain["fixed.onnx"].read_bytes()
    result = {n: (outside / "result" / n).read_bytes() for n in ("first.bin", "second.bin")}
    result["model.onnx"] = (outside / "result" / "model.onnx").read_bytes()
    out = {f"out/{name}": content for name, content in result.items()}
    found = {
        "apply": Scenario(plain, lambda: apply_patch(model, patch, Path("n.onnx")),
                          {"n.onnx": whole}, {}),
        "apply --force": Scenario(
            plain, lambda: apply_patch(model, patch, Path("n.onnx"), force=True),
            {"n.onnx": whole}, {"n.onnx": b"an older model"}),
        "apply external": Scenario(
            data, lambda: apply_patch(Path("in/model.onnx"), patch, Path("out/model.onnx")),
            out, {}),
        "apply past the cache": _past_the_cache(scratch),
        "revert": Scenario(plain, lambda: revert_patch(fixed, patch, Path("o.onnx")),
                           {"o.onnx": plain["model.onnx"].read_bytes()}, {}),
        "diff": Scenario(plain, lambda: diff_models(model, fixed, Path("d")), {"d": b""}, {}),
        "compose": Scenario({**plain, "q": _back(plain, scratch)},
                            lambda: compose_patches(patch, Path("q"), Path("d")), {"d": b""}, {}),
        "repair": Scenario(plain, _patch_and_model, {"n.p": b"", "n.onnx": whole}, {}),
    }  # fmt: skip
    return {name: _completed(scenario) for name, scenario in found.items()}


def _past_the_cache(scratch: Path) -> Scenario:
    """Apply a patch to a data file of three pieces, written as those of gigabytes are."""
    made = scratch / "large"
    made.mkdir()
    weight = np.arange((2 * PIECE + 5000) // 4, dtype=np.float32)
    tensor = TensorProto(name="w", dims=weight.shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    graph = make_graph([], "g", [], [], [tensor])
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    for name in ("in", "out"):
        (made / name).mkdir()
        (made / name / "model.onnx").write_bytes(model.SerializeToString())
        (made / name / "w.bin").write_bytes(weight.tobytes())
        weight[[5, PIECE // 4, len(weight) - 1]] *= -1
    diff_models(made / "in" / "model.onnx", made / "out" / "model.onnx", made / "p")

    def work() -> None:
        kept, writing.DIRECT_FROM = writing.DIRECT_FROM, 0
        apply_patch(Path("in/model.onnx"), Path("p"), Path("out/model.onnx"))
        writing.DIRECT_FROM = kept

    inputs = {name: made / name for name in ("in/model.onnx", "in/w.bin", "p")}
    # The .onnx is the commit point: it comes last.
    outputs = {f"out/{n}": (made / "out" / n).read_bytes() for n in ("w.bin", "model.onnx")}
    return Scenario(inputs, work, outputs, {})


def _patch_and_model() -> None:
    """Write a patch and the model that it makes, in the order in which `repair` does."""
    with (
        opened_patch(Path("p")) as patch,
        survey(Path("model.onnx")) as contents,
        applied(contents, patch, Path("n.onnx")) as (made, stage),
    ):
        save_patch(made, Path("n.p"))
        stage.commit()


def _back(plain: Mapping[str, Path], scratch: Path) -> Path:
    """Return a patch for the result of the golden one."""
    path = scratch / "q"
    diff_models(plain["fixed.onnx"], plain["fixed.onnx"], path)
    return path


def _completed(scenario: Scenario) -> Scenario:
    """Fill in outputs that are known only once they are made."""
    with folder(scenario):
        scenario.work()
        made = {name: Path(name).read_bytes() for name in scenario.outputs}
    for name, expected in scenario.outputs.items():
        assert not expected or made[name] == expected, name
    return Scenario(scenario.inputs, scenario.work, made, scenario.before)


class folder:  # noqa: N801 - used as a context manager
    """A fresh working folder with a scenario's inputs."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="lancet-faults-"))
        for name, source in self.scenario.inputs.items():
            target = self.path / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
        for name, content in self.scenario.before.items():
            (self.path / name).write_bytes(content)
        for name in self.scenario.outputs:
            (self.path / name).parent.mkdir(exist_ok=True)
        os.chdir(self.path)
        return self.path

    def __exit__(self, *_: object) -> None:
        os.chdir("/")
        shutil.rmtree(self.path, ignore_errors=True)


def wrong(scenario: Scenario, fault: Fault, outcome: Outcome, path: Path) -> str:
    """Return what is wrong with a folder after a fault, nothing if all is well."""
    for name, source in scenario.inputs.items():
        if (path / name).read_bytes() != source.read_bytes():
            return f"the input {name} was changed"
    found = {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }
    left = sorted(n for n in found if ".lancet-" in n)
    unknown = found.keys() - scenario.inputs.keys() - scenario.outputs.keys() - {*left}
    if unknown:
        return f"files that nobody asked for: {sorted(unknown)}"
    for name, content in scenario.outputs.items():
        if name in found and found[name] not in (content, scenario.before.get(name)):
            return f"{name} is half written"
    *_, last = scenario.outputs
    complete = all(found.get(n) == c for n, c in scenario.outputs.items())
    if found.get(last) == scenario.outputs[last] and not complete:
        return f"{last} is there, but not all that belongs to it"
    if fault.kind == "kill":
        return "" if outcome.code in (-signal.SIGKILL, 0) else f"ended with {outcome.code}"
    if outcome.code not in (0, 3):
        return f"ended with {outcome.code} instead of an error message"
    if (outcome.code == 0) != complete:
        return f"ended with {outcome.code}, but the files are {'' if complete else 'in'}complete"
    if left and outcome.call not in _CLEANING:
        return f"left {left} behind"
    return ""


def faults(scenario: Scenario) -> Iterator[Fault]:
    """Yield every fault for one scenario: killed at each call, and errors where they can come."""
    with folder(scenario):
        calls = run(scenario.work, None).calls
    yield from (Fault(at, "kill") for at in range(len(calls)))
    for at, call in enumerate(call for call in calls if call in NAMES):
        yield Fault(at, "EIO")
        if call not in _READING:
            yield Fault(at, "ENOSPC")
        if call in _WRITING:
            yield from (Fault(at, kind) for kind in ("EDQUOT", "short"))


def main() -> int:
    """Try every fault of every scenario, print the counts; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lancet-faults-") as scratch:
        return survey_faults(Path(scratch), options.only)


def survey_faults(scratch: Path, only: list[str] | None) -> int:
    """Print a row for each kind of write; 1 if anything was wrong."""
    total = bad = 0
    print("| write | killed | errors injected | short writes | wrong |")
    print("|---|---|---|---|---|")
    for name, scenario in scenarios(scratch).items():
        if only and name not in only:
            continue
        counts = {"kill": 0, "error": 0, "short": 0}
        problems = []
        for fault in faults(scenario):
            with folder(scenario) as path:
                outcome = run(scenario.work, fault)
                if not outcome.call:
                    continue  # threads took turns otherwise, and the child made fewer calls
                problem = wrong(scenario, fault, outcome, path)
            kind = fault.kind if fault.kind in counts else "error"
            counts[kind] += 1
            if problem:
                problems.append(f"{fault.kind} at {fault.at} ({outcome.call}): {problem}")
        total += sum(counts.values())
        bad += len(problems)
        print(
            f"| {name} | {counts['kill']} | {counts['error']} | {counts['short']} "
            f"| {len(problems)} |"
        )
        for problem in problems[:20]:
            print(f"  {problem}")
        sys.stdout.flush()
    print(f"\n{total} injection points, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
