# SPDX-License-Identifier: Apache-2.0
"""The example at the end of each command's help, and what all commands have in common."""

from __future__ import annotations

import typer

EXAMPLES = {
    "demo": "demo",
    "scan": "scan model.onnx --trigger t.png --data val.npz -o scan.html",
    "repair": "repair model.onnx --trigger t.png --data val.npz -o fixed.onnx",
    "verify": "verify model.onnx fixed.onnx --trigger t.png --data val.npz",
    "inspect": "inspect model.onnx",
    "doctor": "doctor",
    "gate": "gate models/ --policy lancet.toml -o gate.html -o gate.sarif",
    "explain": "explain model.onnx --data val.npz -o why.html",
    "patch": "patch apply model.onnx fixed.lancet.safetensors -o fixed.onnx",
    "patch show": "patch show fixed.lancet.safetensors",
    "patch apply": "patch apply model.onnx fixed.lancet.safetensors -o fixed.onnx",
    "patch revert": "patch revert fixed.onnx fixed.lancet.safetensors -o first.onnx",
    "patch diff": "patch diff model.onnx fixed.onnx -o fixed.lancet.safetensors",
    "patch compose": "patch compose first.patch second.patch -o both.patch",
    "signature": "signature check release/ --key public.pem",
    "signature make": "signature make release/ --key private.pem",
    "signature check": "signature check release/ --key public.pem",
}
"""Commands and groups of them by what is typed for them."""

_COMMON = """
-o and -f may be repeated: the end of a name says the form of a report, -f says it for stdout.
Results go to stdout, all else to stderr. Exit codes: 0 good, 1 bad, 3 cannot tell, 2 wrong usage.
"""


def with_examples(app: typer.Typer) -> typer.Typer:
    """Return the app with an example at the end of each help page."""
    app.info.epilog = _shown("demo") + _COMMON
    below = [g.typer_instance for g in app.registered_groups if g.typer_instance]
    for each in below:
        each.info.epilog = _shown(EXAMPLES[str(each.info.name)])
    for before, group in (("", app), *((f"{each.info.name} ", each) for each in below)):
        for command in group.registered_commands:
            line = EXAMPLES.get(f"{before}{command.name}")
            if line:
                command.epilog = _shown(line)
    return app


def _shown(line: str) -> str:
    return f"\b\nExample:\n  lancet-onnx {line}\n"
