# SPDX-License-Identifier: Apache-2.0
"""Where results go: stdout or files; everything else goes to stderr."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from lancet_onnx_cli.attaching import attach, keeps, shown, spare_inputs
from lancet_onnx_cli.choices import Format
from lancet_onnx_cli.tables import terminal, watched

if TYPE_CHECKING:
    from lancet_onnx.report import Checkout, Report
    from lancet_onnx.types import Progress as ReportProgress


@dataclass(frozen=True, slots=True)
class Output:
    """What to write where.

    Attributes:
        targets: formats with their files; None is stdout.
        quiet: no progress and no tables on stderr.
        verbose: also the time of each stage.
        pages: attachments lie beside a page where there is no JSON for them to lie beside.
    """

    targets: tuple[tuple[Format, Path | None], ...]
    quiet: bool = False
    verbose: bool = False
    pages: bool = False

    @classmethod
    def of(
        cls,
        formats: Sequence[Format] | None,
        outputs: Sequence[Path] | None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        reports: Sequence[Path] | None = None,
        pages: bool = False,
    ) -> Output:
        """Pair formats with outputs, the last of each first; what is left goes to stdout.

        Raises:
            BadParameter: more outputs than formats, two formats for stdout, an unknown suffix.
        """
        formats, outputs = list(formats or []), list(outputs or [])
        if outputs and not formats:
            formats = [_by_suffix(path) for path in outputs]
        missing = len(formats) - len(outputs)
        if missing < 0:
            raise typer.BadParameter(f"{len(outputs)} outputs (-o) for {len(formats)} formats (-f)")
        if missing > 1:
            raise typer.BadParameter("only one format can go to stdout; give -o for the others")
        pairs = list(zip(formats, [*([None] * missing), *outputs], strict=True))
        pairs += [(_by_suffix(path), path) for path in reports or []]
        return cls(tuple(pairs), quiet, verbose, pages)

    @property
    def keeping(self) -> tuple[Path, ...]:
        """The reports that attachments lie beside: JSON, or with `pages` and without JSON HTML."""
        for form in (Format.json, *([Format.html] if self.pages else [])):
            paths = tuple(p for f, p in self.targets if f == form and p and keeps(p))
            if paths:
                return paths
        return ()


def spare(output: Output, *others: Path | None, attaching: bool = False) -> None:
    """Refuse report files that cannot be written or that are among the other files of the call.

    With `attaching`, files may come to lie beside a report.

    Raises:
        OutputError: a missing folder, a folder in place of a file, an input or another output.
    """
    files = [path for _, path in output.targets if path is not None]
    for number, path in enumerate(files):
        spare_by(path, *others, *files[:number])
    for path in output.keeping if attaching else ():
        spare_inputs(path, [other for other in others if other])


def spare_by(path: Path, *others: Path | None) -> None:
    """Refuse one file that is to be written.

    Raises:
        OutputError: a missing folder, a folder in place of a file, or one of the others.
    """
    problem = ""
    if path.is_dir():
        problem = "is a folder; give the path of a file to write"
    elif not path.absolute().parent.is_dir():
        problem = "its folder does not exist; create it first"
    elif any(_same(path, other) for other in others if other):
        problem = "is another file of this call as well; give another path"
    if problem:
        from lancet_onnx.errors import OutputError

        raise OutputError(f"{path}: {problem}")


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.absolute() == other.absolute()


def emit(report: Report, output: Output) -> int:
    """Write the report everywhere it is wanted, then return the exit code.

    Without a format the tables go to stderr and the verdict, one word, to stdout. What belongs
    beside the JSON is written there, before it.
    """
    from lancet_onnx_cli.render import DESCRIBING, render_text, render_verdict

    on_stdout = [form for form, path in output.targets if path is None]
    kept = output.keeping
    unplaced, report = report, shown(report, kept[0] if kept else None)
    for form, path in output.targets:
        if path is not None:
            told = attach(unplaced, path) if path in kept else report
            _write(_content(told, form), path)
    if on_stdout == [Format.text]:
        render_text(report, terminal())
    elif on_stdout:
        sys.stdout.write(_content(report, on_stdout[0]))
    elif report.command in DESCRIBING:
        if not output.targets:
            render_text(report, terminal())
    else:
        if not output.quiet:
            render_text(report, terminal(stderr=True))
        render_verdict(report, terminal())
    if report.attachments and not kept and not output.quiet:
        pages = " or FILE.html" if output.pages else ""
        what = "pictures" if output.pages else "triggers that were found"
        typer.echo(f"the {what} are not kept; -o FILE.json{pages} keeps them beside it", err=True)
    if output.verbose and not output.quiet:
        _stages(report)
    if _annotates(report, output):
        sys.stderr.write(_content(report, Format.github))
    sys.stdout.flush()
    return report.exit_code


@contextmanager
def progress(output: Output) -> Iterator[ReportProgress]:
    """Yield a progress callback that draws a bar on stderr, where somebody watches."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from lancet_onnx.types import no_progress

    if output.quiet or not watched():
        yield no_progress
        return
    left = TextColumn("left"), TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), *left)
    with Progress(*columns, console=terminal(stderr=True), transient=True) as bars:
        task = bars.add_task("reading", total=1.0)
        yield lambda what, share: bars.update(task, description=what, completed=share)


def _content(report: Report, form: Format) -> str:
    if form == Format.json:
        return report.to_json()
    if form in _PIPELINES:
        return _for_pipelines(report, form)
    if form == Format.html:
        from lancet_onnx.report import to_html

        command = "lancet-onnx " + shlex.join(sys.argv[1:])
        model = report.body.get("model")
        name = Path(str(model["path"])).name if isinstance(model, Mapping) else ""
        page = to_html(report, f"lancet-onnx {report.command} {name}".strip(), command)
        return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in page)
    from lancet_onnx_cli.render import render_text

    text = io.StringIO()
    console = Console(file=text, width=120)
    render_text(report, console)
    return text.getvalue()


_PIPELINES = (Format.sarif, Format.junit, Format.markdown, Format.github)


def _for_pipelines(report: Report, form: Format) -> str:
    from lancet_onnx.report import to_annotations, to_junit, to_markdown, to_sarif

    if form == Format.junit:
        return to_junit(report)
    if form == Format.markdown:
        return to_markdown(report)
    if form == Format.sarif:
        return to_sarif(report, _checkout(), os.environ.get("LANCET_DOCS", "").rstrip("/"))
    return to_annotations(report, _checkout())


def _annotates(report: Report, output: Output) -> bool:
    """Return whether annotations go to stderr by themselves, where GitHub's runner reads them."""
    asked = any(form == Format.github for form, _ in output.targets)
    runs = os.environ.get("GITHUB_ACTIONS") == "true"
    return runs and report.command == "gate" and not output.quiet and not asked


def _checkout() -> Checkout:
    """Return where we are: the checkout of a workflow, or this folder."""
    from lancet_onnx.report import Checkout

    here = Path.cwd()
    return Checkout(Path(os.environ.get("GITHUB_WORKSPACE") or here), here)


def _by_suffix(path: Path) -> Format:
    forms: dict[str, Format] = {
        ".json": Format.json,
        ".html": Format.html,
        ".txt": Format.text,
        ".sarif": Format.sarif,
        ".xml": Format.junit,
        ".md": Format.markdown,
    }
    if path.suffix not in forms:
        raise typer.BadParameter(f"{path}: expected a name that ends in {', '.join(forms)}")
    return forms[path.suffix]


def _write(content: str, path: Path) -> None:
    from lancet_onnx.errors import OutputError
    from lancet_onnx.model.files import save

    if path.is_file() or not path.exists():
        save(content.encode(), path)
        return
    try:
        path.write_text(content)  # a device or pipe, such as /dev/null
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def _stages(report: Report) -> None:
    stages = report.body.get("stages")
    console = terminal(stderr=True)
    for stage in stages if isinstance(stages, list) else []:
        console.print(
            f"{stage['seconds']:8.2f} s  {stage['image_forwards']:8d} image-forwards  "
            f"{stage['stage']}",
            highlight=False,
        )
