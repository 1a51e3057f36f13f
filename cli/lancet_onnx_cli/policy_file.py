# SPDX-License-Identifier: Apache-2.0
"""The policy of the working folder: what it says of images serves every command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lancet_onnx.api import DataOptions, find_policy, read_policy


def with_policy(options: DataOptions) -> DataOptions:
    """Fill what the command line left open from the policy in the working folder, if there is one.

    Raises:
        UsageError: a policy that is no TOML, or says what no policy may say.
    """
    path = find_policy(Path())
    return options if path is None else completed(options, read_policy(path).data)


def completed(options: DataOptions, policy: DataOptions) -> DataOptions:
    """Fill what the command line left open from a policy.

    What the policy says of means, deviations and colours belongs to its own preprocessing, and is
    left out where the command line names another.
    """
    own = options.preprocess is None
    return replace(
        options,
        path=options.path or policy.path,
        preprocess=options.preprocess or policy.preprocess,
        mean=options.mean or (policy.mean if own else None),
        std=options.std or (policy.std if own else None),
        color=options.color or (policy.color if own else None),
        layout=options.layout or policy.layout,
        resize=options.resize or policy.resize,
        output=options.output or policy.output,
    )
