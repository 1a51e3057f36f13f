# SPDX-License-Identifier: Apache-2.0
"""The schedule of a search: which classes get how many steps, within a budget, resumable.

Few classes are searched all at once, with one form of masks after the other. Many are screened
first: each round halves them and doubles the images that a class gets, so that a round costs the
same however many there are; the last ones and a few controls get the full search.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lancet_onnx.errors import DataError
from lancet_onnx.model.files import save
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.masks import BLOB, FREE, WINDOW, Form
from lancet_onnx.pairs.natural import Natural
from lancet_onnx.pairs.reconstruct import FIELDS, Found, joined, reconstruct
from lancet_onnx.pairs.sources import hunt_sources, possible_sources
from lancet_onnx.samples.reading import NPZ_ERRORS
from lancet_onnx.types import Progress, no_progress

FORMS = (FREE, BLOB, WINDOW)

MANY, CONTROLS = 16, 4
STEPS, BATCH = 80, 24
_ROUND_STEPS, _ROUND_BATCH, _ROUND_IMAGES = 20, 12, 40_000

SOURCE = "source"
"""What a search for triggers of one class's images is called among the forms, as in `verify`."""


@dataclass(frozen=True, slots=True, eq=False)
class Hunt:
    """What a search came to.

    Attributes:
        found: for each form, the cheapest trigger of each class that got the full search; under
            `SOURCE` those for images of one class, of some classes.
        sources: whose images those are for, by the class that they lead to.
        screened: classes that were only screened.
        missing: classes that the budget did not reach.
        resumed: how many parts came from the state file.
    """

    found: dict[str, Found]
    sources: dict[int, int]
    screened: tuple[int, ...]
    missing: tuple[int, ...]
    resumed: int


@dataclass(slots=True)
class Deadline:
    """A budget of seconds, from now; none if there is none."""

    seconds: float | None
    started: float = field(default_factory=time.perf_counter)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.seconds is not None and time.perf_counter() - self.started > self.seconds


class State:
    """Parts of a search that are done, kept in a file so that an interrupted one goes on."""

    def __init__(self, path: Path | None, identity: dict[str, object]) -> None:
        """Read what is there.

        Raises:
            DataError: unreadable, or of another model, data, seed or version.
        """
        self.path, self.identity = path, json.dumps(identity, sort_keys=True)
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        if path is None or not path.exists():
            return
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                content = {name: archive[name] for name in archive.files}
            stored = str(content.pop("identity"))
            for name, value in content.items():
                part, _, column = name.rpartition(":")
                self.parts.setdefault(part, {})[column] = value
        except NPZ_ERRORS as error:
            raise DataError(
                f"{path}: not the state of a scan ({error}); give another --state"
            ) from error
        if stored != self.identity:
            raise DataError(
                f"{path}: the state of another scan (model, images, preprocessing, classes, seed "
                "or version differ); give another --state, or delete it"
            )

    def get(self, part: str) -> Found | None:
        """Return a part that is done, or None."""
        stored = self.parts.get(part)
        if stored is None:
            return None
        try:
            return Found(*(torch.from_numpy(stored[name]) for name in FIELDS))
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path}: a damaged state ({error}); delete it") from error

    def put(self, part: str, found: Found) -> None:
        """Keep a part; the file is whole at every moment.

        Raises:
            OutputError: it cannot be written.
        """
        self.parts[part] = {name: getattr(found, name).cpu().numpy() for name in FIELDS}
        if self.path is None:
            return
        columns = {f"{p}:{n}": v for p, values in self.parts.items() for n, v in values.items()}
        stream = io.BytesIO()
        np.savez_compressed(stream, identity=np.array(self.identity), **columns)  # type: ignore[arg-type]
        save(stream.getvalue(), self.path)


def hunt(
    canvas: Canvas,
    usual: Natural,
    classes: Sequence[int],
    order: Sequence[int],
    state: State,
    deadline: Deadline,
    seed: int,
    progress: Progress = no_progress,
) -> Hunt:
    """Search `classes`; where there are many, those that come first in `order` survive ties."""
    resumed = 0
    rounds = list(_rounds(len(classes)))
    sources = [] if rounds else possible_sources(canvas, classes)
    units = len(rounds) + len(FORMS) + bool(sources)
    left = [c for c in order if c in set(classes)]
    screened: list[int] = []
    controls: list[int] = []
    if rounds:
        rng = np.random.default_rng(seed)
        controls = sorted(int(c) for c in rng.choice(left, CONTROLS, replace=False))

    def part(
        name: str,
        number: float,
        wanted: Sequence[int],
        steps: int,
        batch: int,
        form: Form,
        source: int | None = None,
    ) -> Found | None:
        nonlocal resumed
        key = f"{name}:{','.join(map(str, wanted))}"
        stored = state.get(key)
        if stored is not None:
            resumed += 1
            return stored
        made = _in_groups(
            canvas,
            usual,
            wanted,
            steps,
            batch,
            form,
            seed + int(number) + 100 * (0 if source is None else source + 1),
            source,
            deadline,
            lambda share: progress(
                "searching triggers", (number + share * (source is None)) / units
            ),
        )
        if made is not None:
            state.put(key, made)
        return made

    for number, (keep, batch) in enumerate(rounds):
        made = part("screen", number, left, _ROUND_STEPS, batch, FREE)
        if made is None:
            return Hunt({}, {}, tuple(sorted(screened)), tuple(left), resumed)
        ranked = [int(made.classes[i]) for i in made.cost.argsort(stable=True)]
        screened += [c for c in ranked[keep:] if c not in controls]
        left = [c for c in ranked if c in set(ranked[:keep]) | set(controls)]
    found: dict[str, Found] = {}
    for number, form in enumerate(FORMS, len(rounds)):
        made = part(form.name, number, sorted(left), STEPS, BATCH, form)
        if made is None:
            break
        found[form.name] = made
    whole, sourced = len(found) == len(FORMS), None
    if whole and sources:

        def search(
            source: int, wanted: Sequence[int], steps: int, batch: int, share: float
        ) -> Found | None:
            name, done = f"{SOURCE}:{source}:{steps}", len(FORMS) + share
            return part(name, done, wanted, steps, batch, FREE, source)

        sourced = hunt_sources(sources, left, search)
        whole = sourced is not None
    if sourced is not None:
        found[SOURCE] = sourced.found
    progress("searching triggers", 1.0)
    return Hunt(
        found,
        {} if sourced is None else sourced.sources,
        tuple(sorted(screened)),
        () if whole else tuple(left),
        resumed,
    )


def _rounds(count: int) -> Iterator[tuple[int, int]]:
    """Yield how many classes survive each round of screening, and the images that a class gets."""
    while count > MANY:
        batch = int(np.clip(_ROUND_IMAGES // (count * _ROUND_STEPS), 2, _ROUND_BATCH))
        count = max(MANY - CONTROLS, count // 2)
        yield count, batch
        if count == MANY - CONTROLS:
            return


def _in_groups(
    canvas: Canvas,
    usual: Natural,
    classes: Sequence[int],
    steps: int,
    batch: int,
    form: Form,
    seed: int,
    source: int | None,
    deadline: Deadline,
    tick: Callable[[float], None],
) -> Found | None:
    """Search groups of classes that fit into memory, one after the other; None if time is up."""
    size = max(1, canvas.at_once(batch) // batch)
    groups = [classes[start : start + size] for start in range(0, len(classes), size)]
    parts = []
    for number, group in enumerate(groups):

        def stop(share: float, number: int = number) -> bool:
            tick((number + share) / len(groups))
            return deadline.over

        made = reconstruct(
            canvas,
            usual,
            group,
            steps=steps,
            batch=batch,
            form=form,
            seed=seed + 1000 * number,
            source=source,
            stop=stop,
        )
        if made is None:
            return None
        parts.append(made)
    return joined(parts)
