# SPDX-License-Identifier: Apache-2.0
"""`--from`: what a scan found, from its JSON. That may come from a stranger: nothing is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lancet_onnx_cli.arguments import refuse, trigger_of
from lancet_onnx_cli.choices import Mode

if TYPE_CHECKING:
    from lancet_onnx.api import SuspectOptions, TriggerOptions

MOST_TRIGGERS = 256


def from_scan(
    path: Path,
    model: Path,
    trigger: Path | None,
    mask: Path | None,
    mode: Mode | None,
    place: tuple[int, int] | None,
    target: int | None,
) -> TriggerOptions | SuspectOptions:
    """Return what a scan's first finding says: a known trigger, or those that a search found.

    Options of the command line come first; with another --trigger only the target is taken from
    the scan.

    Raises:
        DataError: no JSON of a scan, of another model, nothing found, or a trigger elsewhere.
        BadParameter: an option that does not go with triggers that a search found.
    """
    from lancet_onnx.api import load
    from lancet_onnx.errors import DataError

    found: TriggerOptions | SuspectOptions
    with _a_scan(path):
        content = json.loads(path.read_text())
        if not content["findings"]:
            raise DataError(f"{path}: the scan found nothing, so there is nothing to repair")
        finding, scanned = content["findings"][0], str(content["model"]["sha256"])
        if trigger is None and "triggers" in finding:
            found = _suspects(path, finding)
            why = "does not go with triggers that a search found"
            refuse(why, mask=mask, trigger_mode=mode, position=place)
            refuse(why, target=None if target == found.target else target)
        else:
            found = _known(finding, trigger, mask, mode, place, target)
    if str(load(model).digest) != scanned:
        raise DataError(
            f"{path}: this scan was of another model (sha256 {scanned[:12]}...) than {model}; scan "
            "this one, or give --trigger instead of --from"
        )
    return found


@contextmanager
def _a_scan(path: Path) -> Iterator[None]:
    from lancet_onnx.errors import DataError

    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(
            f"{path}: not the JSON of a scan ({reason}); expected a file that "
            "`lancet-onnx scan ... -f json -o FILE` wrote"
        ) from error


def _known(
    finding: Mapping[str, object],
    trigger: Path | None,
    mask: Path | None,
    mode: Mode | None,
    place: tuple[int, int] | None,
    target: int | None,
) -> TriggerOptions:
    target = _whole(finding["target"]) if target is None else target
    if trigger is None:
        found = finding["trigger"]
        if not isinstance(found, Mapping):
            raise TypeError("no trigger")
        trigger, mode = Path(found["path"]), mode or _mode(found["mode"])
        mask = mask or (Path(found["mask"]) if found.get("mask") else None)
        if place is None and found.get("position"):
            place = int(found["position"][0]), int(found["position"][1])
    return trigger_of(trigger, mask, mode, place, target)


def _suspects(path: Path, finding: Mapping[str, object]) -> SuspectOptions:
    from lancet_onnx.api import SuspectOptions
    from lancet_onnx.errors import DataError

    if finding.get("source") is not None:
        raise DataError(
            f"{path}: the trigger that was found works on images of class "
            f"{_whole(finding['source'])} only; such a backdoor is not repaired. Take the model "
            "from a source that you trust"
        )
    target, triggers = _whole(finding["target"]), finding["triggers"]
    if not isinstance(triggers, list) or len(triggers) > MOST_TRIGGERS:
        raise TypeError("no list of triggers")
    if not triggers:
        raise DataError(f"{path}: the scan names no trigger; give one with --trigger")
    return SuspectOptions(
        target,
        tuple(
            trigger_of(_beside(path, each["path"]), None, _mode(each["mode"]), None, target)
            for each in triggers
        ),
    )


def _beside(scan: Path, name: object) -> Path:
    """Return the path of a file that the JSON names, if it is in the JSON's folder.

    Raises:
        DataError: it is not kept, not there, or elsewhere, also by way of a link.
    """
    from lancet_onnx.errors import DataError

    if name is None:
        raise DataError(
            f"{scan}: the triggers of this scan were not kept; scan again with -o FILE.json, "
            "which keeps them beside it"
        )
    if not isinstance(name, str):
        raise TypeError("no path")
    path, folder = scan.parent / name, scan.parent.resolve()
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{scan}: names the trigger {name}, which is not in its own folder")
    try:
        goal = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a link that leads nowhere"
        raise DataError(
            f"{path}: {reason}; the triggers of a scan must be beside its JSON, {scan}"
        ) from error
    if not goal.is_relative_to(folder):
        raise DataError(f"{scan}: names the trigger {name}, a link out of its own folder")
    if not goal.is_file():
        raise DataError(f"{scan}: names the trigger {name}, which is no regular file")
    return path


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("no whole number")
    return value


def _mode(value: object) -> Mode:
    if value not in get_args(Mode):
        raise ValueError("no mode")
    mode: Mode = value  # type: ignore[assignment]
    return mode
