# SPDX-License-Identifier: Apache-2.0
"""Where results go: stdout or files; everything else goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lancet_onnx_cli.attaching import attach, keeps, shown, spare_inputs
from lancet_onnx_cli.choices import Format
from lancet_onnx_cli.forms import by_suffix, content, write
from lancet_onnx_cli.tables import terminal

if TYPE_CHECKING:
    from lancet_onnx.errors import OutputError
    from lancet_onnx.report import Report


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

        Where there are fewer formats than outputs none is paired: every output takes its form
        from its name, and the format is for stdout.

        Raises:
            BadParameter: two formats for stdout, an unknown suffix.
        """
        formats, outputs = list(formats or []), list(outputs or [])
        if len(formats) < len(outputs):
            formats += [by_suffix(path) for path in outputs]
        missing = len(formats) - len(outputs)
        if missing > 1:
            raise typer.BadParameter("only one format can go to stdout; give -o for the others")
        pairs = list(zip(formats, [*([None] * missing), *outputs], strict=True))
        pairs += [(by_suffix(path), path) for path in reports or []]
        return cls(tuple(pairs), quiet, verbose, pages)

    @property
    def files(self) -> tuple[Path, ...]:
        """The reports that are files; a device or pipe takes one report, once."""
        return tuple(path for _, path in self.targets if path and keeps(path))

    @property
    def keeping(self) -> tuple[Path, ...]:
        """The reports that attachments lie beside: JSON, or with `pages` and without JSON HTML."""
        for form in (Format.json, *([Format.html] if self.pages else [])):
            paths = tuple(p for f, p in self.targets if f == form and p in self.files)
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

    Raises:
        OutputError: a file cannot be written; all else that was wanted has been.
    """
    from lancet_onnx_cli.render import DESCRIBING, render_text, render_verdict

    on_stdout = [form for form, path in output.targets if path is None]
    kept = output.keeping
    unplaced, report = report, shown(report, kept[0] if kept else None)
    failed = save_reports(output, lambda path: attach(unplaced, path) if path in kept else report)
    if on_stdout == [Format.text]:
        render_text(report, terminal())
    elif on_stdout:
        sys.stdout.write(content(report, on_stdout[0]))
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
        sys.stderr.write(content(report, Format.github))
    sys.stdout.flush()
    if failed is not None:
        raise failed
    return report.exit_code


def save_reports(output: Output, told: Callable[[Path], Report]) -> OutputError | None:
    """Write what is told to each file, in its form; return the first error.

    One file that cannot be written takes none of the others away.
    """
    from lancet_onnx.errors import OutputError

    failed = None
    for form, path in output.targets:
        if path is not None:
            try:
                write(content(told(path), form), path)
            except OutputError as error:
                failed = failed or error
    return failed


def _annotates(report: Report, output: Output) -> bool:
    """Return whether annotations go to stderr by themselves, where GitHub's runner reads them."""
    asked = any(form == Format.github for form, _ in output.targets)
    runs = os.environ.get("GITHUB_ACTIONS") == "true"
    return runs and report.command == "gate" and not output.quiet and not asked


def _stages(report: Report) -> None:
    stages = report.body.get("stages")
    console = terminal(stderr=True)
    for stage in stages if isinstance(stages, list) else []:
        console.print(
            f"{stage['seconds']:8.2f} s  {stage['image_forwards']:8d} image-forwards  "
            f"{stage['stage']}",
            highlight=False,
        )
