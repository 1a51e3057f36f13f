# SPDX-License-Identifier: Apache-2.0
"""`lancet.toml` in the working folder: defaults for the data and its preprocessing."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from lancet_onnx.api import DataOptions
from lancet_onnx.errors import DataError

NAME = "lancet.toml"


def with_policy(options: DataOptions) -> DataOptions:
    """Fill what the command line left open from `[data]` of ./lancet.toml, if there is one.

    Raises:
        DataError: the file is no TOML, or a value is not text.
    """
    path = Path(NAME)
    if not path.is_file():
        return options
    try:
        section = tomllib.loads(path.read_text()).get("data", {})
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    values = {key: section[key] for key in ("path", "preprocess") if key in section}
    for key, value in values.items():
        if not isinstance(value, str):
            raise DataError(f"{path}: [data] {key} must be text, found {value!r}")
    if options.preprocess is None and "preprocess" in values:
        options = replace(options, preprocess=values["preprocess"])
    if options.path is None and "path" in values:
        options = replace(options, path=Path(values["path"]))
    return options
