# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/ and the files beside them: links, anchors, the nav, commands, examples."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from lancet_onnx_cli.commands import app
from typer.main import get_command

from lancet_onnx.api.policy import read_policy
from lancet_onnx.samples.preprocess import from_file

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`lancet-onnx ([a-z][^`]*)`")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """What may follow the # of a link here: as GitHub and as MkDocs make it, where both agree."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a id="([^"]+)"></a>', text))
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]+)\]\([^)]+\)|`([^`]*)`", r"\1\2", heading)
        kept = re.sub(r"[^\w\s-]", "", plain).strip().lower()
        github, mkdocs = kept.replace(" ", "-"), re.sub(r"[-\s]+", "-", kept)
        if github == mkdocs:
            found.add(github)
    return found


def links(path: Path) -> Iterator[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    yield from (link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link))


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        goal, _, anchor = link.partition("#")
        target = (page.parent / goal).resolve() if goal else page
        assert target.is_file(), link
        if page in PAGES:
            assert target.is_relative_to(DOCS), f"{link}: renderers of docs/ do not see it"
            assert target.suffix != ".py", link
        if anchor:
            assert anchor in anchors(target), link


def nav(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for goal in entry.values():
            yield from nav(goal) if isinstance(goal, list) else [goal]


def test_the_nav_has_every_page_once_and_the_entrance_leads_to_all() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = [str(path.relative_to(DOCS)) for path in PAGES]
    assert sorted(nav(config["nav"])) == pages
    assert {link.partition("#")[0] for link in links(DOCS / "index.md")} >= {*pages} - {"index.md"}


def built(config: Path, goal: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(goal)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_mkdocs_builds_every_page_strictly(tmp_path: Path) -> None:
    done = built(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")).is_file(), page
    assert not list((tmp_path / "site").rglob("*.py"))


def test_mkdocs_does_not_build_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "tutorial.md").open("a") as page:
        page.write("\n[away](how-to/own-model.md#no-such-heading)\n")
    done = built(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    assert "no-such-heading" in done.stderr


def test_the_reference_of_the_command_line_is_made_from_it() -> None:
    made = runpy.run_path(str(DOCS / "cli.py"))
    assert "\n".join(made["lines"]()) + "\n" == made["PAGE"].read_text(), "run python docs/cli.py"
    told = [word for names in made["VERDICTS"] for word in names.split(", ")]
    for command, _ in made["commands"]():
        assert command in told or f"{command.split()[0]} ..." in told, command


def lines(page: Path) -> Iterator[str]:
    """Yield what follows `lancet-onnx` in each command that the page shows."""
    text = page.read_text(encoding="utf-8")
    for body in BLOCK.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            if line.startswith("$ lancet-onnx"):
                yield line.removeprefix("$ lancet-onnx").strip()
            elif line.startswith("$ ") and "lancet-onnx " in line and "docker" not in line:
                yield line.partition("lancet-onnx ")[2].partition(";")[0]
    for line in INLINE.findall(FENCE.sub("", text)):
        # In a sentence a command may stand for itself, or for what its group does.
        yield line if len(line.split()) > 2 or "." in line else f"{line} --help"


def parse(line: str) -> None:
    """Read a command line as the program does, up to where the command would run."""
    words, command = shlex.split(line, comments=True), get_command(app)
    cut = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", "||")), None)
    words = words[:cut]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if words == ["--help"]:
        return
    assert not hasattr(command, "commands"), f"{line}: no such command"
    command.make_context("lancet-onnx", words)


@pytest.mark.parametrize(
    "page", [each for each in [*PAGES, *OUTSIDE] if list(lines(each))], ids=name
)
def test_commands_on_pages_are_ones_that_there_are(page: Path) -> None:
    for line in lines(page):
        if "..." in line:
            continue  # a form of commands, not one of them
        if line.startswith("--"):  # of the program itself; read for real, some would act
            known = {option for each in get_command(app).params for option in each.opts}
            assert line.split()[0] in known, line
            continue
        try:
            parse(line)
        except Exception as error:
            pytest.fail(f"lancet-onnx {line}: {getattr(error, 'message', '') or error!r}")


def test_a_command_that_there_is_not_is_noticed() -> None:
    parse("scan model.onnx --trigger t.png -o scan.html")
    for wrong in (
        "scan model.onnx --triger t.png",
        "scna model.onnx",
        "repair model.onnx",
        "patch",
    ):
        with pytest.raises(Exception, match=r".*"):
            parse(wrong)


@pytest.mark.parametrize(
    ("page", "read"),
    [
        ("tutorial.md", read_policy),
        ("policy.md", read_policy),
        ("how-to/ci.md", read_policy),
        ("how-to/own-model.md", from_file),
    ],
)
def test_the_examples_of_toml_can_be_read(page: str, read: Any, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        assert read(path)


def test_the_examples_of_json_are_what_the_schema_says() -> None:
    schema = json.loads((DOCS / "report.schema.json").read_text())
    text = (DOCS / "reference" / "json.md").read_text()
    examples = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        jsonschema.Draft202012Validator(schema).validate(json.loads(example))
    keys = set(re.findall(r"`([a-z_]+)`", text))
    assert {*schema["$defs"]["figures"]["properties"]} <= keys
