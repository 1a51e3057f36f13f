# SPDX-License-Identifier: Apache-2.0
"""The files for pipelines: the action's own steps run in bash, against a stand-in and for real."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lancet_onnx_cli.choices import Format
from support import DEMO, ROOT, environment

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOK = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]
PAGE = (ROOT / "docs" / "ci.md").read_text()
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
SHOWN = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.S))

STAND_IN = f"""#!{sys.executable}
import os, pathlib, sys
line = sys.argv[1:]
pathlib.Path(os.environ["SAID"]).write_text("\\0".join(line))
for flag, path in zip(line, line[1:]):
    if flag == "-o" and not os.environ.get("WRITES_NOTHING"):
        pathlib.Path(path).write_text("report of " + path)
print(os.environ.get("VERDICT", ""), end="\\n" if os.environ.get("VERDICT") else "")
sys.exit(int(os.environ["CODE"]))
"""
REAL = f"""#!/bin/sh
exec {shlex.quote(sys.executable)} -m lancet_onnx_cli "$@"
"""

GITHUB = {
    "server_url": "https://g.example",
    "action_repository": "o/lancet-onnx",
    "action_ref": "v1",
}


class Runner:
    """What GitHub's runner gives to a step: folders, files for outputs and summary, the inputs."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.files = {n: folder / n for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "said")}
        for path in self.files.values():
            path.touch()
        program_file = folder / "lancet-onnx" / "bin" / "lancet-onnx"
        program_file.parent.mkdir(parents=True)
        program_file.write_text(program)
        program_file.chmod(0o755)

    def step(self, name: str, cwd: Path, given: dict[str, str] | None = None, **env: str) -> Any:
        """Run a step as the runner does, with its inputs filled in."""
        step = STEPS[name]
        given = {key: spec["default"] for key, spec in ACTION["inputs"].items()} | (given or {})
        filled = {
            key: re.sub(r"\$\{\{ (\S+) \}\}", lambda found: self._of(found[1], given), value)
            for key, value in step.get("env", {}).items()
        }
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        assert "${{" not in step["run"], "inputs come by the environment, where they are only text"
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=cwd,
            env=environment(
                RUNNER_TEMP=str(self.folder),
                GITHUB_ACTIONS="true",
                GITHUB_WORKSPACE=str(cwd),
                GITHUB_OUTPUT=str(self.files["GITHUB_OUTPUT"]),
                GITHUB_STEP_SUMMARY=str(self.files["GITHUB_STEP_SUMMARY"]),
                SAID=str(self.files["said"]),
                PYTHONPATH=os.environ.get("PYTHONPATH", ""),
                **filled,
                **env,
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    @property
    def outputs(self) -> dict[str, str]:
        """What the steps have put out so far."""
        lines = self.files["GITHUB_OUTPUT"].read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def said(self) -> list[str]:
        """The line that the stand-in was called with."""
        return self.files["said"].read_text().split("\0")

    def _of(self, name: str, given: dict[str, str]) -> str:
        where, _, key = name.partition(".")
        if where == "github":
            return GITHUB[key]
        return given[key] if where == "inputs" else self.outputs[key.rpartition(".")[2]]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, STAND_IN)


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("not_evaluated", 3)])
def test_the_action_puts_out_verdict_and_reports_and_ends_as_the_gate(
    runner: Runner, tmp_path: Path, verdict: str, code: int
) -> None:
    given = {"model": "a b.onnx\n\nmodels/*.onnx\n", "policy": "p.toml"}
    done = runner.step("Gate", tmp_path, given, VERDICT=verdict, CODE=str(code))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert runner.outputs["verdict"] == verdict
    said = runner.said
    assert said[:3] == ["gate", "--policy", "p.toml"]
    assert said[said.index("--") + 1 :] == ["a b.onnx", "models/*.onnx"]
    reports = {key: Path(runner.outputs[key]) for key in ("json", "sarif", "junit", "markdown")}
    assert [path.name for path in reports.values()] == [
        "report.json", "report.sarif", "report.xml", "report.md",
    ]  # fmt: skip
    assert all(path.is_file() for path in reports.values())
    summary = runner.files["GITHUB_STEP_SUMMARY"].read_text()
    assert summary == f"report of {reports['markdown']}"
    assert runner.step("Verdict", tmp_path).returncode == code


def test_the_runner_takes_no_command_from_what_tells_of_a_model(
    runner: Runner, tmp_path: Path
) -> None:
    done = runner.step("Gate", tmp_path, VERDICT="fail", CODE="1")
    lines = done.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("::stop-commands::"))
    token = lines[start].rpartition("::")[2]
    assert len(token) == 32
    end = lines.index(f"::{token}::")
    # The annotations, whose text is escaped, come after it; whatever else was said came before.
    assert start < end
    (told,) = (n for n, line in enumerate(lines) if line.startswith("report of "))
    assert told > end
    assert lines[told].endswith("/annotations")
    again = runner.step("Gate", tmp_path, VERDICT="fail", CODE="1").stdout
    assert token not in again


def test_without_inputs_the_policy_says_it_all(runner: Runner, tmp_path: Path) -> None:
    assert runner.step("Gate", tmp_path, VERDICT="pass", CODE="0").returncode == 0
    assert runner.said[-1] == "--"
    assert "--policy" not in runner.said


def test_a_gate_that_breaks_down_never_passes(runner: Runner, tmp_path: Path) -> None:
    assert runner.step("Gate", tmp_path, CODE="70", WRITES_NOTHING="1").returncode == 0
    assert runner.outputs == {"verdict": "not_evaluated", "code": "70"}
    assert runner.step("Verdict", tmp_path).returncode == 70


def test_inputs_are_text_and_never_code(runner: Runner, tmp_path: Path) -> None:
    evil = '$(touch evil) `touch evil` "; touch evil; " ${CODE} --version'
    done = runner.step("Gate", tmp_path, {"model": evil, "policy": evil}, VERDICT="pass", CODE="0")
    assert done.returncode == 0
    assert runner.said[-1] == evil
    assert runner.said[2] == evil
    assert not (tmp_path / "evil").exists()


def test_an_unknown_form_is_refused(runner: Runner, tmp_path: Path) -> None:
    done = runner.step("Gate", tmp_path, {"formats": "json pdf"}, VERDICT="pass", CODE="0")
    assert done.returncode == 2
    assert "pdf is not one of json" in done.stderr


def test_the_action_offers_every_form_of_a_file() -> None:
    forms = {form.value for form in Format} - {"github"}
    assert set(ACTION["outputs"]) == forms | {"verdict"}
    assert set(ACTION["inputs"]["formats"]["default"].split()) == forms - {"text"}


def test_the_action_gates_a_real_model(tmp_path: Path) -> None:
    runner, repository = Runner(tmp_path, REAL), tmp_path / "repository"
    (repository / "models").mkdir(parents=True)
    for name in ("model.onnx", "trigger.png", "images.npz"):
        (repository / "models" / name).write_bytes((DEMO / name).read_bytes())
    (repository / "lancet.toml").write_text(
        '[data]\npath = "models/images.npz"\npreprocess = "unit"\n'
        "[gate]\nmin_clean_accuracy = 0.9\nmax_attack_success = 0.05\n"
        '[[trigger]]\npath = "models/trigger.png"\n'
    )
    done = runner.step("Gate", repository, {"model": "models/model.onnx"})
    assert done.returncode == 0, done
    assert runner.outputs["verdict"] == "fail", done.stderr
    assert "\n::error file=models/model.onnx,line=1," in done.stdout
    assert "::error" not in done.stderr
    assert runner.files["GITHUB_STEP_SUMMARY"].read_text().startswith("## lancet-onnx gate: fail")
    (run,) = json.loads(Path(runner.outputs["sarif"]).read_text())["runs"]
    uris = {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    }
    assert uris == {"models/model.onnx"}
    links = {rule["helpUri"] for rule in run["tool"]["driver"]["rules"]}
    assert links == {"https://g.example/o/lancet-onnx/blob/v1/docs/rules.md#lnc011"}
    assert runner.step("Verdict", repository).returncode == 1


@pytest.mark.parametrize(
    ("model", "verdict", "code"), [("clean", "pass", 0), ("hostile", "fail", 1)]
)
def test_the_hook_takes_models_without_images(
    tmp_path: Path, model: str, verdict: str, code: int
) -> None:
    paths = {
        "clean": ROOT / "fixtures" / "mnist_cnn_clean.onnx",
        "hostile": ROOT / "fixtures" / "refused" / "two_value_fields.onnx",
    }
    line = [*shlex.split(HOOK["entry"]), *HOOK["args"], str(paths[model])]
    done = subprocess.run(
        [sys.executable, "-m", "lancet_onnx_cli", *line[1:]],
        cwd=tmp_path,
        env=environment(PYTHONPATH=os.environ.get("PYTHONPATH", "")),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (code, f"{verdict}\n"), done


def test_the_hook_is_for_pushes_of_models() -> None:
    assert HOOK["stages"] == ["pre-push", "manual"]
    assert re.search(HOOK["files"], "models/a.onnx")
    assert not re.search(HOOK["files"], "models/a.onnx.md")


def test_what_the_page_shows_is_what_there_is() -> None:
    assert SHOWN["Dockerfile"] == (ROOT / "Dockerfile").read_text()
    workflow = yaml.safe_load(SHOWN[".github/workflows/models.yml"])
    uses = {
        step["uses"].split("@")[0]: step.get("with", {})
        for step in workflow["jobs"]["gate"]["steps"]
    }
    assert set(uses["OWNER/lancet-onnx"]) <= set(ACTION["inputs"])
    configuration = yaml.safe_load(SHOWN[".pre-commit-config.yaml"])
    assert configuration["repos"][0]["hooks"][0]["id"] == HOOK["id"]


@pytest.mark.parametrize("file", [".gitlab-ci.yml", "Jenkinsfile"])
def test_the_gates_of_the_snippets_write_what_they_keep(
    file: str, runner: Runner, tmp_path: Path
) -> None:
    (line,) = re.findall(r"(?<=[/\s])lancet-onnx gate [^'\n]*", SHOWN[file])
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=tmp_path,
        env=environment(
            PATH=f"{tmp_path / 'lancet-onnx' / 'bin'}:{os.environ['PATH']}",
            SAID=str(runner.files["said"]),
            CODE="1",
        ),
        check=False,
    )
    assert done.returncode == 1, "the pipeline stops"
    kept = set(re.findall(r"gate\.(?:xml|html|json)", SHOWN[file].replace(line, "")))
    assert kept
    assert all((tmp_path / name).is_file() for name in kept)


def test_the_image_runs_as_a_user_without_rights() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    user = next(i for i, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] != "USER root"
    assert int(lines[user].split()[1]) >= 1000
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in lines[user:])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        word
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
