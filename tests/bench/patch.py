# SPDX-License-Identifier: Apache-2.0
"""Patching a large model beside `cp` of the same file: seconds, and memory over the interpreter's.

    python tests/bench/patch.py [--gigabytes 3] [--rounds 5] [--folder DIR] [--only apply ...]

A model of that size (its weights in one data file, and once more in an .onnx file of 1.9 GB without
one) is made of seeded random numbers in a temporary folder. Each command is the command line in a
process of its own; rounds are interleaved with `cp` and with `cp` followed by `sync` of the copy,
since a patched model is on the disk when the command ends, and a copy is not. Figures are medians.
Memory is the peak (VmHWM) of the process less that of a bare interpreter.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from lancet_onnx.api.patching import save_patch
from lancet_onnx.model.contents import survey
from lancet_onnx.model.wire import delimited
from lancet_onnx.patch import Patch, TensorDelta
from lancet_onnx.types import Digest, ParamName, ValueName

SHAPE = (4096, 8192)
TENSOR = 4 * SHAPE[0] * SHAPE[1]
FREE = 9 << 30
"""Bytes of memory that every step finds freshly freed: more than any of them takes."""

EDITS = 1000
"""In each of two tensors; a repair changes about as many, in one layer."""

RUNNER = """
import sys
sys.argv = ["lancet-onnx", *sys.argv[1:]]
code = 0
if len(sys.argv) > 1:
    from lancet_onnx_cli.app import main
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("PEAK", peak.split()[1], file=sys.stderr)
sys.exit(code)
"""


def numbers(seed: int) -> bytes:
    """Return one tensor's bytes: floats with every mantissa bit in use."""
    rng = np.random.default_rng(seed)
    return (rng.random(TENSOR // 4, np.float32) - np.float32(0.5)).tobytes()


def skeleton(count: int) -> tuple[list[bytes], bytes]:
    """Return the initializers' fields but for values, and the rest of the graph."""
    names = [f"layer{n}.weight" for n in range(count)]
    nodes = [
        helper.make_node("MatMul", ["x" if n == 0 else f"h{n}", name], [f"h{n + 1}"], f"mm{n}")
        for n, name in enumerate(names)
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SHAPE[0]])],
        [helper.make_tensor_value_info(f"h{count}", TensorProto.FLOAT, None)],
    )
    heads = []
    for name in names:
        head = TensorProto(name=name, dims=SHAPE, data_type=TensorProto.FLOAT)
        heads.append(head.SerializeToString())
    return heads, graph.SerializeToString()


def external_model(folder: Path, count: int) -> Path:
    """Write a model with `count` tensors in one data file; return the .onnx file."""
    heads, graph = skeleton(count)
    with (folder / "weights.bin").open("wb") as data:
        for n in range(count):
            data.write(numbers(n))
    items = []
    for n, head in enumerate(heads):
        tensor = TensorProto.FromString(head)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "weights.bin", "offset": n * TENSOR, "length": TENSOR}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        items.append(delimited(5, tensor.SerializeToString()))
    path = folder / "model.onnx"
    path.write_bytes(model_head() + delimited(7, graph + b"".join(items)))
    return path


def inline_model(folder: Path, count: int) -> Path:
    """Write a model with `count` tensors inside the .onnx file."""
    heads, graph = skeleton(count)
    sizes = [len(delimited(9, b"")) - 1 + 5 + len(head) + TENSOR for head in heads]
    path = folder / "inline.onnx"
    with path.open("wb") as file:

        def header(number: int, size: int) -> bytes:
            return varint(number << 3 | 2) + varint(size)

        parts = [header(5, size - 1) for size in sizes]
        whole = len(graph) + sum(map(len, parts)) + sum(size - 1 for size in sizes)
        file.write(model_head() + header(7, whole) + graph)
        for n, (part, head) in enumerate(zip(parts, heads, strict=True)):
            file.write(part + head + header(9, TENSOR) + numbers(n))
    return path


def varint(number: int) -> bytes:
    """Return the shortest coding of a number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def model_head() -> bytes:
    """Return a model's fields beside its graph."""
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=opsets)
    model.ClearField("graph")
    return bytes(model.SerializeToString())


def flips(model: Path, target: Path, *, base: Digest, seed: int) -> None:
    """Write a patch that turns the signs of some weights in two tensors."""
    with survey(model) as contents:
        rng = np.random.default_rng(seed)
        deltas = []
        for name in list(contents.stored)[2:4]:
            at = contents.stored[name]
            places = np.sort(rng.choice(at.bytes // 4, EDITS, replace=False))
            old = np.empty(EDITS, "<u4")
            start = 0
            for piece in contents.pieces(name):
                inside = (places >= start) & (places < start + len(piece) // 4)
                old[inside] = np.frombuffer(piece, "<u4")[places[inside] - start]
                start += len(piece) // 4
            new = old ^ np.uint32(1 << 31)
            deltas.append(
                TensorDelta.of(ParamName(ValueName(name)), "float32", at.shape, places, old, new)
            )
        weights = contents.weights_digest()
        save_patch(Patch(base, weights, None, tuple(deltas), "bench", seed, {}), target)


def lancet(*arguments: str | Path) -> tuple[float, int]:
    """Run the command line; return seconds and peak memory in bytes."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}")
    peak = next(line for line in done.stderr.splitlines() if line.startswith("PEAK"))
    return seconds, 1024 * int(peak.split()[1])


def copied(source: Path, folder: Path, *, sync: bool) -> float:
    """Return the seconds of `cp` into a folder, with the copy sent to the disk or not."""
    target = folder / "copy.bin"
    target.unlink(missing_ok=True)
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    if sync:
        subprocess.run(["sync", target], check=True)
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def emptied(folder: Path) -> Path:
    """Return a folder with no file in it."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


def settle() -> None:
    """Give every step the same start: nothing waits for the disk, and memory has just been in use.

    A virtual machine hands free memory back to its host and gets it again page by page, which would
    be charged to whichever step takes pages that were not in use a moment before.
    """
    os.sync()
    touch = f"import numpy; numpy.ones({FREE} // 8)"
    subprocess.run([sys.executable, "-c", touch], check=True)


def used(folder: Path) -> int:
    """Return the bytes that are taken of the file system, once all is written."""
    os.sync()
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def commands(model: Path, folder: Path) -> Iterator[tuple[str, Callable[[], list[str | Path]]]]:
    """Yield each command's name and what gives its arguments, with an empty place for results."""
    patch, second = folder / "one.lancet.safetensors", folder / "two.lancet.safetensors"
    fixed = folder / "fixed" / model.name
    out = folder / "out"
    yield "apply", lambda: ["patch", "apply", model, patch, "-o", emptied(out) / model.name]
    yield "revert", lambda: ["patch", "revert", fixed, patch, "-o", emptied(out) / model.name]
    yield "diff", lambda: ["patch", "diff", model, fixed, "-o", emptied(out) / "p"]
    yield "compose", lambda: ["patch", "compose", patch, second, "-o", emptied(out) / "p"]
    yield "show", lambda: ["patch", "show", patch]


def measure(model: Path, weights: Path, folder: Path, rounds: int, only: list[str] | None) -> None:
    """Print a table for one model."""
    patch, second = folder / "one.lancet.safetensors", folder / "two.lancet.safetensors"
    fixed = folder / "fixed"
    fixed.mkdir()
    # The digests of the base come from the command itself: two differences of nothing and a few.
    lancet("patch", "diff", model, model, "-o", folder / "same")
    from lancet_onnx.patch import opened_patch

    with opened_patch(folder / "same") as same:
        base = same.base
    flips(model, folder / "raw", base=base, seed=1)
    before = used(folder)
    lancet("patch", "apply", model, folder / "raw", "-o", fixed / model.name)
    taken = used(folder) - before
    lancet("patch", "diff", model, fixed / model.name, "-o", patch)
    with opened_patch(patch) as known:
        assert known.result is not None
        flips(fixed / model.name, second, base=known.result, seed=2)
    baseline = statistics.median(lancet()[1] for _ in range(3))
    chosen = [(n, f) for n, f in commands(model, folder) if not only or n in only]
    times: dict[str, list[float]] = {name: [] for name, _ in chosen}
    peaks: dict[str, list[int]] = {name: [] for name, _ in chosen}
    plain: list[float] = []
    synced: list[float] = []
    for _ in range(rounds):
        emptied(folder / "out")
        settle()
        plain.append(copied(weights, folder, sync=False))
        settle()
        synced.append(copied(weights, folder, sync=True))
        for name, arguments in chosen:
            line = arguments()
            settle()
            seconds, peak = lancet(*line)
            times[name].append(seconds)
            peaks[name].append(peak)
    size = weights.stat().st_size
    cp, cp_sync = statistics.median(plain), statistics.median(synced)
    print(
        f"{size / 1e9:.2f} GB in {weights.name}, {rounds} rounds; a bare interpreter takes ", end=""
    )
    print(f"{baseline / 1e6:.0f} MB; a patched copy takes {taken / 1e9:.2f} GB of the disk")
    print("| command | seconds | x cp | x cp and sync | MB over the interpreter |")
    print("|---|---|---|---|---|")
    print(f"| cp | {cp:.2f} ({min(plain):.2f} to {max(plain):.2f}) | 1 | {cp / cp_sync:.2f} | |")
    print(
        f"| cp and sync | {cp_sync:.2f} ({min(synced):.2f} to {max(synced):.2f}) "
        f"| {cp_sync / cp:.2f} | 1 | |"
    )
    for name, seen in times.items():
        middle = statistics.median(seen)
        print(
            f"| {name} | {middle:.2f} ({min(seen):.2f} to {max(seen):.2f}) | {middle / cp:.2f} "
            f"| {middle / cp_sync:.2f} | {(max(peaks[name]) - baseline) / 1e6:.0f} |"
        )
    print(flush=True)


def main() -> None:
    """Make the models, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the large files go for a while, e.g. on another file system",
    )
    parser.add_argument("--only", nargs="+", help="commands")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        model = external_model(folder, round(options.gigabytes * 1e9 / TENSOR))
        measure(model, folder / "weights.bin", folder, options.rounds, options.only)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        count = min(round(options.gigabytes * 1e9 / TENSOR), 14)
        model = inline_model(folder, count)
        measure(model, model, folder, options.rounds, options.only)


if __name__ == "__main__":
    main()
