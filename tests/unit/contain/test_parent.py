# SPDX-License-Identifier: Apache-2.0
"""How a child's end is told, whatever its end is."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lancet_onnx.api import RepairOptions, SearchOptions
from lancet_onnx.contain import ChildError, Limits, contained, parent
from lancet_onnx.contain.limits import default_limits, resident
from lancet_onnx.errors import DataError, LimitError, ModelError
from lancet_onnx.rules import CRASH, CUSTOM, MEMORY, TIME

Stand = Callable[[str], None]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Put a script in the child's place; it finds the request on its first line of stdin."""

    def stand(script: str) -> None:
        path = tmp_path / "child.py"
        head = "import json, os, signal, sys, time\nrequest = json.loads(sys.stdin.readline())\n"
        path.write_text(head + textwrap.dedent(script))
        monkeypatch.setattr(parent, "CHILD", (str(path),))

    return stand


def call(limits: Limits | None = None, **arguments: object):
    return contained("scan", {"model": Path("m.onnx"), **arguments}, limits or Limits(None, 20.0))


REPORT = {"report": {"command": "scan", "verdict": "clean", "reasons": []}, "pictures": []}


def test_a_report_and_progress_come_back(child: Stand):
    told = []
    child(
        f"""
        print(json.dumps({{"progress": ["half", 0.5]}}), flush=True)
        print({json.dumps(json.dumps(REPORT))})
        """
    )
    report = contained("scan", {"model": Path("m")}, Limits(), lambda *now: told.append(now))
    assert report.verdict == "clean"
    assert told == [("half", 0.5)]


def test_the_request_says_what_is_asked_for(child: Stand, tmp_path: Path):
    child(
        f"""
        open({str(tmp_path / "request")!r}, "w").write(json.dumps(request))
        print({json.dumps(json.dumps(REPORT))})
        """
    )
    call(Limits(1 << 30, 9.5), seed=3)
    request = json.loads((tmp_path / "request").read_text())
    assert request["command"] == "scan"
    assert request["arguments"] == {"model": "m.onnx", "seed": 3}
    assert request["limits"] == [1 << 30, 9.5]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("sys.exit(9)", "exit code 9"),
        ("print('no JSON')", "exit code 0"),
        ("print('[1, 2]')", "exit code 0"),
        ("print('{}')", "no report"),
        ("print(json.dumps({'report': {'verdict': 'fine'}, 'pictures': []}))", "no report"),
    ],
)
def test_a_child_that_dies_or_lies_is_a_refusal(child: Stand, script: str, words: str):
    child(script)
    with pytest.raises(LimitError, match=words) as caught:
        call(Limits(2 << 30, 20.0))
    assert caught.value.rule is CRASH
    assert str(caught.value).startswith("m.onnx: ")


def test_a_child_that_takes_too_long_is_ended_with_all_it_started(child: Stand, tmp_path: Path):
    child(
        f"""
        grandchild = os.fork()
        if grandchild:
            open({str(tmp_path / "pid")!r}, "w").write(str(grandchild))
        time.sleep(100)
        """
    )
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"longer than 1\.5 s") as caught:
        call(Limits(None, 1.5))
    assert caught.value.rule is TIME
    assert time.monotonic() - start < 8
    process = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if gone(process):
            return
        time.sleep(0.1)
    raise AssertionError("the grandchild lives on")


def gone(process: int) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("name", "make"),
    [("options", RepairOptions), ("search", lambda path: SearchOptions(state=path))],
)
def test_a_child_that_will_not_go_is_killed_and_tidied_up_after(
    child: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path], object],
):
    monkeypatch.setattr(parent, "_GRACE", 0.3)
    child(
        f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        folder = {str(tmp_path)!r} + f"/.lancet-{{os.getpid()}}-abc.tmp"
        os.mkdir(folder)
        open(folder + "/model.onnx", "w").write("half")
        open(folder[:-7] + "def.tmp", "w").write("half")
        time.sleep(100)
        """
    )
    (tmp_path / ".lancet-1-other.tmp").write_text("somebody else's")
    with pytest.raises(LimitError, match="longer than"):
        call(Limits(None, 1.0), **{name: make(tmp_path / "out.onnx")})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lancet-1-other.tmp", "child.py"]


def test_a_child_over_its_memory_is_ended_also_where_the_kernel_does_not_hold_it(
    child: Stand, monkeypatch: pytest.MonkeyPatch
):
    child("time.sleep(100)")
    monkeypatch.setattr(parent, "resident", lambda _: 1 << 40)
    with pytest.raises(LimitError, match=r"more memory than the 2 GiB") as caught:
        call(Limits(2 << 30, 20.0))
    assert caught.value.rule is MEMORY


def test_what_the_child_runs_out_of_memory_for_is_a_limit(child: Stand):
    child("print(json.dumps({'no_memory': 'machine'}))")
    with pytest.raises(LimitError, match="needs more memory than there is"):
        call()
    child("print(json.dumps({'no_memory': 'card'}))")
    with pytest.raises(LimitError, match="graphics card has free") as caught:
        call()
    assert caught.value.rule is MEMORY


def test_a_child_that_floods_is_ended(child: Stand, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parent, "LARGEST_ANSWER", 1 << 20)
    child("while True: sys.stdout.write('x' * 4096)")
    with pytest.raises(LimitError, match="talks too much"):
        call()


def test_refusals_and_bugs_are_told_apart(child: Stand):
    def failing(**error: object) -> None:
        told = {"known": True, "text": "what", "rule": None, "traceback": "Traceback ...", **error}
        child(f"print(json.dumps({{'error': {told!r}}}))")

    failing(type="DataError")
    with pytest.raises(DataError, match=r"^what$"):
        call()
    failing(type="UnsupportedError", rule="LNC111")
    with pytest.raises(ModelError, match=r"^what \[LNC111\]$") as caught:
        call()
    assert caught.value.rule is CUSTOM
    for kind in ("KeyError", "Rule", "annotations", "__name__"):
        failing(type=kind, known=kind != "KeyError")
        with pytest.raises(ChildError, match=f"^{kind}: what$") as bug:
            call()
        assert bug.value.traceback == "Traceback ..."


def test_what_a_killed_child_leaves_among_temporary_files_is_removed(
    child: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A patched model, say, of which only `explain` wants to know what it answers."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    child(
        f"""
        made = {str(folder)!r} + f"/.lancet-{{os.getpid()}}-abc.tmp"
        os.mkdir(made)
        open(made + "/model.onnx", "w").write("half")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    (folder / ".lancet-1-other.tmp").write_text("somebody else's")
    with pytest.raises(LimitError, match="SIGKILL"):
        call()
    assert [p.name for p in folder.iterdir()] == [".lancet-1-other.tmp"]


def test_an_interrupt_ends_the_child_too(child: Stand, tmp_path: Path):
    child(
        f"""
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        time.sleep(100)
        """
    )

    def interrupt() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        call()
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_usual_limits_leave_the_machine_alive():
    limits = default_limits()
    assert limits.seconds == 3600
    assert limits.memory is not None
    assert 0 < limits.memory < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert not Limits()
    assert Limits(None, 1.0)


def test_processor_time_is_limited(child: Stand):
    """A child that the clock does not see: it is told apart from other deaths by its signal."""
    child("os.kill(os.getpid(), signal.SIGXCPU)")
    with pytest.raises(LimitError, match="more processor time than --timeout allows") as caught:
        call()
    assert caught.value.rule is TIME


@pytest.mark.parametrize("gpu", [False, True])
def test_the_kernel_holds_a_process_to_its_limits(gpu: bool):
    script = f"""
    import resource
    from lancet_onnx.contain.limits import Limits, limit_this_process
    limit_this_process(Limits(3 << 30, 7.0), gpu={gpu})
    kinds = resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_CORE
    print(*(resource.getrlimit(kind)[0] for kind in kinds))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    seconds, memory, core = map(int, done.stdout.split())
    cores = os.cpu_count() or 1
    assert 7 * cores <= seconds <= 7 * cores + 10
    assert (memory == 3 << 30) != gpu
    assert core == 0


def test_memory_in_use_is_read():
    assert resident(os.getpid()) > 1 << 20
    assert resident(1 << 30) == 0
