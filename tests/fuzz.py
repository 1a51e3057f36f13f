# SPDX-License-Identifier: Apache-2.0
"""Bytes that somebody wants us to read: damaged models and patches end in a refusal, never worse.

    pip install atheris            # coverage-guided, Python 3.11 or newer, Linux
    python tests/fuzz.py model --minutes 10 [--keep DIR]
    python tests/fuzz.py patch --minutes 10
    python tests/fuzz.py replay    # every seed once, without atheris; CI does this

A seed is every model in fixtures/ and every input that an earlier run kept under fixtures/fuzz/.
With --keep the smallest inputs that reached code no other reached are put there, and every crash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "fixtures" / "fuzz"
SECONDS = 10
"""For one input: more is a hang."""

MEMORY = 3 << 30
KEEP = 200
"""Inputs of one run that are kept, the smallest first."""

LARGEST = 1 << 14
"""Bytes of a seed: larger ones are slow and say no more."""


def model(data: bytes) -> str:
    """Read a model as every command does; return how it ended."""
    from lancet_onnx.errors import ModelError
    from lancet_onnx.model.contents import understand
    from lancet_onnx.model.logic import logic_on_input

    try:
        graph, contents = understand(data, Path("fuzz/model.onnx"))
        for at in contents.stored.values():
            if at.bytes <= 1 << 24:
                at.read()
        logic_on_input(graph)
    except ModelError as error:
        if "\n" in str(error) and len(str(error).splitlines()) > 20:
            raise AssertionError("a message of many lines") from error
        return error.rule.id if error.rule else "refused"
    return "read"


def patch(data: bytes) -> str:
    """Read a patch as every command does; return how it ended."""
    from lancet_onnx.errors import PatchError
    from lancet_onnx.patch import opened_patch

    path = Path(tempfile.gettempdir()) / f"lancet-fuzz-{os.getpid()}"
    path.write_bytes(data)
    try:
        with opened_patch(path) as found:
            for delta in found.deltas:
                list(delta.blocks())
            _ = found.identity
    except PatchError:
        return "refused"
    finally:
        path.unlink()
    return "read"


TARGETS: dict[str, Callable[[bytes], str]] = {"model": model, "patch": patch}
SUFFIXES = {"model": ".onnx", "patch": ".safetensors"}


def seeds(target: str) -> list[Path]:
    """Return the files that a run begins with."""
    found = [
        path
        for path in sorted((ROOT / "fixtures").rglob(f"*{SUFFIXES[target]}"))
        if path.stat().st_size <= LARGEST
    ]
    return [*found, *sorted((KEPT / target).glob("*"))]


def replay() -> int:
    """Run every seed once; print how they ended; 1 if one did not end as it should."""
    bad = 0
    for target, run in TARGETS.items():
        ends: dict[str, int] = {}
        files = list(dict.fromkeys(seeds(target)))
        for path in files:
            start = time.monotonic()
            try:
                end = run(path.read_bytes())
            except Exception as error:
                end = f"{type(error).__name__}: {error}"
                print(f"{path}: {end}")
                bad += 1
            if time.monotonic() - start > SECONDS:
                print(f"{path}: took {time.monotonic() - start:.0f} s")
                bad += 1
            ends[end] = ends.get(end, 0) + 1
        told = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
        print(f"{target}: {len(files)} seeds ({told})")
    return 1 if bad else 0


def fuzz(target: str, minutes: float, keep: bool) -> None:
    """Run atheris from the seeds; it ends the process, with an error if anything went wrong."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["lancet_onnx.model", "lancet_onnx.patch"]):
        import lancet_onnx.model.contents
        import lancet_onnx.model.logic
        import lancet_onnx.patch  # noqa: F401
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    work = Path(tempfile.mkdtemp(prefix="lancet-fuzz-"))
    for path in seeds(target):
        content = path.read_bytes()
        (work / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
    known = {path.name for path in work.iterdir()}

    def one(data: bytes) -> None:
        TARGETS[target](data)

    arguments = [
        sys.argv[0],
        str(work),
        f"-max_total_time={int(60 * minutes)}",
        f"-timeout={SECONDS}",
        f"-max_len={LARGEST}",
        f"-rss_limit_mb={MEMORY >> 20}",
        "-print_final_stats=1",
        f"-artifact_prefix={work}/crash-",
    ]
    if target == "patch":
        atheris.Setup(arguments, one, custom_mutator=_mutate_header)
    else:
        atheris.Setup(arguments, one)
    print(f"{target}: {len(known)} seeds, working in {work}", flush=True)
    if keep:
        import atexit

        atexit.register(_keep, work, known, target)
    atheris.Fuzz()


def _mutate_header(data: bytes, most: int, seed: int) -> bytes:
    """Change one value of a patch's header, or any byte: blind changes only break its JSON."""
    import atheris

    pick = random.Random(seed)  # noqa: S311 - reproducible
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        tensor = header[pick.choice(list(header))]
        name = pick.choice(list(tensor))
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        return bytes(atheris.Mutate(data, most))
    if pick.random() < 0.2:
        return data[: 8 + length] + bytes(atheris.Mutate(data[8 + length :], most - 8 - length))
    value = tensor[name]
    text = value if isinstance(value, str) else json.dumps(value)
    changed = atheris.Mutate(text.encode(), len(text) + 64).decode(errors="replace")
    try:
        tensor[name] = changed if isinstance(value, str) else json.loads(changed)
    except (ValueError, RecursionError):
        tensor[name] = pick.choice(_ODD)
    text = json.dumps(header)
    text += " " * (-len(text) % 8)
    return (len(text).to_bytes(8, "little") + text.encode() + data[8 + length :])[:most]


_ODD = (None, [], {}, -1, 0, 1, 1 << 63, "", [[]], 0.5, "I64", "U8", [0, 8], [1])


def _keep(work: Path, known: set[str], target: str) -> None:
    folder = KEPT / target
    folder.mkdir(parents=True, exist_ok=True)
    new = sorted((p for p in work.iterdir() if p.name not in known), key=lambda p: p.stat().st_size)
    crashes = [p for p in new if p.name.startswith("crash-")]
    for path in crashes + [p for p in new if p not in crashes][:KEEP]:
        content = path.read_bytes()
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def main() -> int:
    """Parse and do; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*TARGETS, "replay"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.what == "replay":
        return replay()
    fuzz(options.what, options.minutes, options.keep)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
