# SPDX-License-Identifier: Apache-2.0
"""What `explain` found as people see it: each error, each class, and curves as lines of points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lancet_onnx.report.untrusted import as_number, as_rows, as_share, as_table, as_whole

LEFT, TOP, WIDTH, HEIGHT = 34.0, 8.0, 200.0, 110.0
"""Where a curve is drawn, in units of the page's chart."""

_APART = 11.0
"""Two labels of lines are at least so far from each other, or nobody could read them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of an image: its label, and the probability of that and of two others."""

    label: str
    sure: float
    true: float
    wrong: float


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: its points for an SVG, and where the label at its end stands."""

    points: str
    end: float


@dataclass(frozen=True, slots=True)
class ErrorView:
    """One error. Pictures are addresses, "" where there is none; what is not known is None."""

    image: int
    true: str
    wrong: str
    alike: int | None
    before: Reading | None
    companion: Reading | None
    after: Reading | None
    area: float | None
    fills: tuple[int, int] | None
    elsewhere: bool | None
    adds: tuple[float, float] | None
    true_line: Line | None
    wrong_line: Line | None
    turns: float | None
    pictures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClassView:
    """One class: what the model looks for, and what the located weights do."""

    label: str
    whole: str
    located: str
    adds: float | None
    sure: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """How many weights of one layer are looked at, of how many.

    `explains` is how many errors a few weights of the layer account for, and of how many; None for
    a patch.
    """

    node: str
    initializer: str
    located: int
    weights: int
    explains: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class ExplainedView:
    """All that the page shows of an explanation.

    Attributes:
        errors: one by one.
        classes: those that the errors are of or are taken for.
        places: where the located weights are.
        located: how many there are.
        by_patch: they are those that a patch changes.
        total: how many errors the model makes on the images, None if not known.
    """

    errors: tuple[ErrorView, ...]
    classes: tuple[ClassView, ...]
    places: tuple[Place, ...]
    located: int
    by_patch: bool
    total: int | None


def explained_view(data: Mapping[str, object], pictures: Mapping[str, str]) -> ExplainedView | None:
    """Return what is shown of an explanation's JSON object; None for other reports.

    `pictures` are addresses by name. Nothing in `data` is relied on: a report may come from a
    process that a hostile model took over.
    """
    if data.get("command") != "explain":
        return None
    classes = as_rows(data.get("classes"))
    names = {as_whole(row.get("class")): row.get("name") for row in classes}
    places = tuple(
        Place(
            str(row.get("node", "")),
            str(row.get("initializer", "")),
            as_whole(row.get("located")) or 0,
            as_whole(row.get("weights")) or 0,
            _pair(row, "pairs_located", "pairs"),
        )
        for row in as_rows(data.get("located"))
    )
    return ExplainedView(
        tuple(_error(n, row, names, pictures) for n, row in enumerate(as_rows(data.get("errors")))),
        tuple(_class(row, names, pictures) for row in classes),
        places,
        sum(place.located for place in places),
        data.get("located_by") == "patch",
        as_whole(as_table(data.get("counts")).get("errors")),
    )


def label_of(number: object, names: Mapping[int | None, object]) -> str:
    """Return a class for people: its name, or its number if it has none."""
    known = as_whole(number)
    name = names.get(known)
    return str(name) if name else f"class {'?' if known is None else known}"


def _error(
    place: int,
    row: Mapping[str, object],
    names: Mapping[int | None, object],
    pictures: Mapping[str, str],
) -> ErrorView:
    curve, elsewhere = as_rows(row.get("curve")), row.get("elsewhere_restored")
    lines = [_line(curve, which) for which in ("true", "wrong")]
    if lines[0] is not None and lines[1] is not None:
        lines = list(_spread(lines[0], lines[1]))
    true = row.get("true")
    return ErrorView(
        image=as_whole(row.get("image")) or 0,
        true=label_of(true, names),
        wrong=label_of(row.get("wrong"), names),
        alike=as_whole(row.get("alike")),
        before=_reading(row.get("probability"), names),
        companion=_reading(row.get("companion"), names),
        after=_reading(row.get("patched"), names),
        area=as_share(row.get("mask_area")),
        fills=_pair(row.get("other_fills"), "restored", "tried"),
        elsewhere=elsewhere if isinstance(elsewhere, bool) else None,
        adds=_numbers(row.get("contribution"), "wrong", "true"),
        true_line=lines[0],
        wrong_line=lines[1],
        turns=_turns(curve, true),
        pictures={part: pictures.get(f"error{place + 1}-{part}.png", "") for part in _PARTS},
    )


def _turns(curve: Sequence[Mapping[str, object]], true: object) -> float | None:
    """Return from which amount on the model says the true label to the end; None if never."""
    first = None
    for point in curve:
        if point.get("label") != true:
            first = None
        elif first is None:
            first = as_share(point.get("amount"))
    return first


_PARTS = ("image", "mask", "companion")


def _class(
    row: Mapping[str, object], names: Mapping[int | None, object], pictures: Mapping[str, str]
) -> ClassView:
    number = as_whole(row.get("class"))
    return ClassView(
        label_of(number, names),
        pictures.get(f"class{number}-whole.png", ""),
        pictures.get(f"class{number}-located.png", ""),
        as_number(row.get("contribution")),
        as_share(row.get("probability")),
    )


def _reading(value: object, names: Mapping[int | None, object]) -> Reading | None:
    said = as_table(value)
    true, wrong, sure = (as_share(said.get(name)) for name in ("true", "wrong", "sure"))
    if true is None or wrong is None or sure is None:
        return None
    return Reading(label_of(said.get("label"), names), sure, true, wrong)


def _line(curve: Sequence[Mapping[str, object]], which: str) -> Line | None:
    """Return the points of one label's probability against the amount that is wiped out."""
    shares = [(as_share(point.get("amount")), as_share(point.get(which))) for point in curve]
    known = [
        (amount, share) for amount, share in shares if amount is not None and share is not None
    ]
    if not known:
        return None
    at = [(LEFT + amount * WIDTH, TOP + (1 - share) * HEIGHT) for amount, share in known]
    return Line(" ".join(f"{x:.1f},{y:.1f}" for x, y in at), round(at[-1][1], 1))


def _spread(one: Line, other: Line) -> tuple[Line, Line]:
    """Return two lines whose labels do not lie on each other."""
    near = _APART - abs(one.end - other.end)
    if near <= 0:
        return one, other
    down = near / 2 if one.end >= other.end else -near / 2
    return Line(one.points, one.end + down), Line(other.points, other.end - down)


def _pair(value: object, first: str, second: str) -> tuple[int, int] | None:
    one, other = (as_whole(as_table(value).get(name)) for name in (first, second))
    return None if one is None or other is None else (one, other)


def _numbers(value: object, first: str, second: str) -> tuple[float, float] | None:
    one, other = (as_number(as_table(value).get(name)) for name in (first, second))
    return None if one is None or other is None else (one, other)
