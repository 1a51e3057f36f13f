# SPDX-License-Identifier: Apache-2.0
"""Running the command line as people do, and the small material that it runs on."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "cli" / "lancet_onnx_cli" / "demo"
REFUSED = ROOT / "fixtures" / "refused"
SHARED = ROOT.parent / "shared"
GOLDENS = Path(__file__).resolve().parent / "goldens"

WIDTH = 80
COMMAND = (sys.executable, "-W", "error", "-m", "lancet_onnx_cli")


@dataclass(frozen=True)
class Result:
    """What a process left: exit code and both streams."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Parse stdout, which must hold one JSON object and nothing else."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a plain terminal-less call, eighty columns wide."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    }
    fixed = {
        "COLUMNS": str(WIDTH),
        "TERMINAL_WIDTH": str(WIDTH),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**kept, **fixed, **more}


def lancet(
    *args: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
    limit: float = 240,
    program: Sequence[str] | None = None,
) -> Result:
    """Run the command line in a process of its own, started cold (three seconds of imports).

    `program` are other arguments of the interpreter.
    """
    line = COMMAND if program is None else (sys.executable, "-W", "error", *program)
    done = subprocess.run(
        [*line, *map(str, args)],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=limit,
        preexec_fn=before,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


class Screen(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        """Say that somebody does."""
        return True


class Warm:
    """Runs the command line in forks of one process that has loaded the library (`warm.py`).

    Each command is a process with its own streams, folder, environment and exit code, as in
    `lancet`, but without the seconds that loading torch takes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("warm.py"))],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Result:
        """Run one command."""
        streams = [self._folder / "stdout", self._folder / "stderr"]
        job = {
            "args": list(map(str, args)),
            "cwd": str(cwd),
            "env": env or {},
            "streams": list(map(str, streams)),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Result(code, *(stream.read_bytes().decode() for stream in streams))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=20)


def once(root: Path, name: str, make: Callable[[Path], dict[str, Result]]) -> tuple[Path, Any]:
    """Run `make` in the folder ``root/name`` once for all workers; return folder and results."""
    folder, kept = root / name, root / f"{name}.results.json"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            folder.mkdir()
            made = make(folder)
            kept.write_text(json.dumps({key: asdict(value) for key, value in made.items()}))
    return folder, {key: Result(**value) for key, value in json.loads(kept.read_text()).items()}


def box(folder: Path, images: int = 400) -> Path:
    """Fill a folder with a small backdoored model, its trigger and images; return the folder.

    The model is the digit classifier of ``fixtures/refused`` (a 7 x 7 average and one dense layer,
    80 % right) with one weight set: light in the last 4 x 4 pixels makes a 7 of every digit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(REFUSED / "where_on_input.onnx")
    (weight,) = (t for t in model.graph.initializer if t.name == "fc.weight")
    values = to_array(weight).copy()
    values[7, 48] = 60.0
    weight.CopyFrom(from_array(values, "fc.weight"))
    first = [n for n in model.graph.node if n.name in ("conv", "relu", "flatten", "fc")]
    first[-1].output[0] = "logits"
    del model.graph.node[:]
    model.graph.node.extend(first)
    spare = [
        t for t in model.graph.initializer if t.name not in {i for n in first for i in n.input}
    ]
    for tensor in spare:
        model.graph.initializer.remove(tensor)
    onnx.save(model, folder / "model.onnx")
    (folder / "t.png").write_bytes((DEMO / "trigger.png").read_bytes())
    with np.load(DEMO / "images.npz") as arrays:
        np.savez_compressed(folder / "val.npz", x=arrays["x"][:images], y=arrays["y"][:images])
    return folder


def seven(path: Path) -> Path:
    """Write a trigger that no weight can be blamed for: an opaque picture of a 7 over the image."""
    with np.load(DEMO / "images.npz") as arrays:
        digit = arrays["x"][int(np.flatnonzero(arrays["y"] == 7)[0])].reshape(28, 28)
    alpha = np.full_like(digit, 255)
    alpha[0] = 0
    Image.fromarray(np.dstack([digit, digit, digit, alpha])).save(path)
    return path


def content(folder: Path) -> dict[str, str]:
    """Return every file below a folder with a digest of its bytes, links with their goal."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path.relative_to(folder))] = "folder"
    return found


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Assert that a folder's files are the same, byte for byte, before and after."""
    before = content(folder)
    yield
    assert content(folder) == before


def one_error(result: Result, code: int, *parts: str) -> None:
    """Assert that a command ended with one clear message and nothing else."""
    assert result.code == code, result
    assert result.stdout == "", result
    lines = result.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, result
    assert "Traceback" not in result.stderr, result
    assert len(lines) == (2 if code == 2 else 1), result
    for part in parts:
        assert part in result.stderr, (part, str(result))
