# SPDX-License-Identifier: Apache-2.0
"""Who is searched how long: screening, the budget, and a state that goes on where it ended."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hunts import shorten
from tiny import pictures, planted

from lancet_onnx.errors import DataError
from lancet_onnx.pairs.canvas import Canvas
from lancet_onnx.pairs.natural import Natural, natural
from lancet_onnx.pairs.reconstruct import FIELDS, Found
from lancet_onnx.samples import PRESETS
from lancet_onnx.verify.searching import BOUNDS

module: ModuleType = importlib.import_module("lancet_onnx.pairs.hunt")
Deadline, Hunt, State, hunt = module.Deadline, module.Hunt, module.State, module.hunt

FEW, MANY, TARGET = 4, 20, 3
STEPS = 40
ME = {"model": "this one", "seed": 0}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, STEPS)


@pytest.fixture
def few(tmp_path: Path) -> tuple[Canvas, Natural]:
    return setting(tmp_path, FEW)


@pytest.fixture
def many(tmp_path: Path) -> tuple[Canvas, Natural]:
    return setting(tmp_path, MANY)


def setting(folder: Path, classes: int) -> tuple[Canvas, Natural]:
    canvas = Canvas.of(planted(folder, classes, TARGET), pictures(classes, 5), PRESETS["unit"])
    return canvas, natural(canvas, 0)


def run(at: tuple[Canvas, Natural], state=None, *, order=None, seconds=None, seed=0, progress=None):
    classes = range(at[0].classifier.signature.classes)
    more = (progress,) if progress else ()
    return hunt(
        *at, classes, order or classes, state or State(None, ME), Deadline(seconds), seed, *more
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a whole search of few classes; tests damage a copy of it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, STEPS)
        run(setting(folder, FEW), State(folder / "state.npz", ME))
    return folder / "state.npz"


def a_part() -> Found:
    """Something to keep in a state; what is in it is not looked at."""
    return Found(*(torch.zeros(1) for _ in FIELDS))


def same(one, other) -> bool:
    return one.found.keys() == other.found.keys() and all(
        torch.equal(getattr(one.found[form], name), getattr(other.found[form], name))
        for form in one.found
        for name in FIELDS
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many classes each call of `reconstruct` for all images had, and how many images each."""
    made: list[tuple[int, int]] = []
    real = module.reconstruct

    def counted(canvas, usual, classes, **options):
        if options["source"] is None:
            made.append((len(classes), options["batch"]))
        return real(canvas, usual, classes, **options)

    monkeypatch.setattr(module, "reconstruct", counted)
    return made


@pytest.mark.parametrize("count", [2, 10, module.MANY])
def test_few_classes_are_not_screened(count: int):
    assert list(module._rounds(count)) == []


def test_every_form_has_a_bound():
    assert [*(form.name for form in module.FORMS), module.SOURCE] == list(BOUNDS)


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (17, [12]),
        (43, [21, 12]),
        (200, [100, 50, 25, 12]),
        (1000, [500, 250, 125, 62, 31, 15]),
    ],
)
def test_rounds_halve_the_classes_down_to_a_handful(count: int, kept: list[int]):
    rounds = list(module._rounds(count))
    assert [k for k, _ in rounds] == kept
    batches = [batch for _, batch in rounds]
    assert batches == sorted(batches)
    assert 2 <= batches[0] <= batches[-1] == module._ROUND_BATCH
    assert kept[-1] + module.CONTROLS <= module.MANY + module.CONTROLS


def screening(count: int) -> list[int]:
    """Images of each round: classes by images by steps."""
    images = []
    for kept, batch in module._rounds(count):
        images.append(count * batch * module._ROUND_STEPS)
        count = kept + module.CONTROLS
    return images


def full(count: int) -> int:
    return count * module.STEPS * module.BATCH * len(module.FORMS)


def test_screening_grows_far_slower_than_the_classes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert sum(screening(1000)) < 2.2 * sum(screening(200))
    for count, share in ((43, 0.45), (200, 0.16), (1000, 0.06)):
        # No round costs more than its share, however many classes there are.
        assert max(screening(count)) < 1.05 * module._ROUND_IMAGES
        last = [kept for kept, _ in module._rounds(count)][-1] + module.CONTROLS
        assert sum(screening(count)) + full(last) < share * full(count)


def test_few_classes_are_all_searched_in_every_form(few, calls):
    found = run(few)
    assert calls == [(FEW, 12)] * 3
    assert list(found.found) == ["free", "blob", "window", "source"]
    assert set(found.sources) == set(found.found["source"].classes.tolist()) <= set(range(FEW))
    for form in list(found.found.values())[:3]:
        assert form.classes.tolist() == list(range(FEW))
        assert int(form.cost.argmin()) == TARGET
    assert (found.screened, found.missing, found.resumed) == ((), (), 0)


def test_many_classes_are_screened_and_the_planted_one_stays(many, calls):
    found = run(many)
    last = found.found["free"].classes.tolist()
    assert 12 <= len(last) <= 12 + module.CONTROLS
    assert TARGET in last
    assert sorted([*last, *found.screened]) == list(range(MANY))
    assert found.found["blob"].classes.tolist() == last
    assert calls[0] == (MANY, module._ROUND_BATCH)
    assert calls[1:] == [(len(last), 12)] * 3
    assert int(found.found["free"].classes[found.found["free"].cost.argmin()]) == TARGET


def test_controls_get_the_full_search_however_dear_they_are(many, monkeypatch):
    order = list(range(MANY))
    controls = np.random.default_rng(7).choice(order, module.CONTROLS, replace=False)
    real = module.reconstruct

    def rigged(canvas, usual, classes, **options):
        found = real(canvas, usual, classes, **options)
        found.cost[torch.isin(found.classes, torch.from_numpy(controls))] = 1.9
        return found

    monkeypatch.setattr(module, "reconstruct", rigged)
    found = run(many, order=order, seed=7)
    assert set(controls.tolist()) <= set(found.found["free"].classes.tolist())
    assert not set(controls.tolist()) & set(found.screened)


def test_where_screening_cannot_tell_the_looks_decide(many, monkeypatch):
    real = module.reconstruct

    def tied(canvas, usual, classes, **options):
        found = real(canvas, usual, classes, **{**options, "steps": 1})
        found.cost.fill_(1.0)
        return found

    monkeypatch.setattr(module, "reconstruct", tied)
    order = list(reversed(range(MANY)))
    assert set(order[:12]) <= set(run(many, order=order).found["free"].classes.tolist())


def test_a_search_is_the_seeds(few):
    first, again, other = run(few), run(few), run(few, seed=5)
    assert same(first, again)
    assert not same(first, other)


def test_progress_goes_up_to_the_end(many):
    heard: list[float] = []
    run(many, progress=lambda _, share: heard.append(share))
    assert heard == sorted(heard)
    assert 0 < heard[0] < 0.1
    assert heard[-1] == 1.0


@pytest.mark.parametrize("memory", [1, 2**31])
def test_classes_that_do_not_fit_at_once_go_in_groups(few, calls, monkeypatch, memory: int):
    monkeypatch.setattr("lancet_onnx.pairs.canvas.MEMORY", memory)
    found = run(few)
    assert calls == ([(1, 12)] * 12 if memory == 1 else [(FEW, 12)] * 3)
    assert found.found["free"].classes.tolist() == list(range(FEW))
    assert int(found.found["free"].cost.argmin()) == TARGET


@pytest.mark.parametrize("at", ["few", "many"])
def test_time_that_is_over_leaves_all_classes_out(request, tmp_path: Path, at: str):
    path = tmp_path / "state.npz"
    found = run(request.getfixturevalue(at), State(path, ME), seconds=0.0)
    assert found.found == {}
    assert sorted(found.missing) == list(range(FEW if at == "few" else MANY))
    assert not path.exists()


def test_time_that_ends_between_two_forms_keeps_the_first(few, monkeypatch):
    deadline = Deadline(None)
    state = State(None, ME)
    put = state.put
    monkeypatch.setattr(state, "put", lambda *a: (put(*a), setattr(deadline, "seconds", 0.0)))
    found = hunt(*few, range(FEW), range(FEW), state, deadline, 0)
    assert list(found.found) == ["free"]
    assert found.missing == tuple(range(FEW))


def test_time_that_ends_in_screening_forgets_no_class(tmp_path: Path, monkeypatch):
    at = setting(tmp_path, 40)
    deadline, state = Deadline(None), State(None, ME)
    put = state.put
    monkeypatch.setattr(state, "put", lambda *a: (put(*a), setattr(deadline, "seconds", 0.0)))
    found = hunt(*at, range(40), range(40), state, deadline, 0)
    assert len(found.screened) >= 16
    assert sorted([*found.screened, *found.missing]) == list(range(40))


def test_a_deadline_without_seconds_is_never_over():
    assert not Deadline(None).over
    assert not Deadline(1000.0).over
    assert Deadline(0.0).over


def resumed(at: tuple[Canvas, Natural], path: Path, forbid: Callable[[], None]):
    first = run(at, State(path, ME))
    forbid()
    return first, run(at, State(path, ME))


@pytest.mark.parametrize(("at", "parts"), [("few", 3), ("many", 4)])
def test_a_finished_search_is_read_from_its_state(
    request, tmp_path: Path, monkeypatch, at: str, parts: int
):
    def never(*args, **options):
        pytest.fail("searched again")

    first, again = resumed(
        request.getfixturevalue(at),
        tmp_path / "state.npz",
        lambda: monkeypatch.setattr(module, "reconstruct", never),
    )
    assert same(first, again)
    assert (first.screened, first.missing) == (again.screened, again.missing)
    pairs = [p for p in State(tmp_path / "state.npz", ME).parts if p.startswith(module.SOURCE)]
    assert bool(pairs) == (at == "few")
    assert (first.resumed, again.resumed - len(pairs)) == (0, parts)
    assert [p.name for p in tmp_path.iterdir() if "state" in p.name] == ["state.npz"]


def test_an_interrupted_search_ends_as_if_it_had_not_been(few, tmp_path: Path, monkeypatch):
    path, real = tmp_path / "state.npz", module.reconstruct
    whole = run(few)

    def second_fails(*args, **options):
        if options["form"] is not module.FREE:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(module, "reconstruct", second_fails)
    with pytest.raises(KeyboardInterrupt):
        run(few, State(path, ME))
    monkeypatch.setattr(module, "reconstruct", real)
    after = run(few, State(path, ME))
    assert after.resumed == 1
    assert same(whole, after)


def test_a_state_that_is_not_written_to_its_end_stays_as_it_was(tmp_path: Path, monkeypatch):
    path = tmp_path / "state.npz"
    State(path, ME).put("free:0", a_part())
    before = path.read_bytes()

    def full_disk(stream, **columns):
        stream.write(b"PK half")
        raise OSError("no space")

    state = State(path, ME)
    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space"):
        state.put("more", a_part())
    assert path.read_bytes() == before


@pytest.mark.parametrize("other", [{"model": "another"}, {"seed": 1}, {"data": "other"}])
def test_the_state_of_another_scan_is_refused(tmp_path: Path, other: dict[str, object]):
    path = tmp_path / "state.npz"
    State(path, ME).put("free:0", a_part())
    with pytest.raises(DataError, match="state of another scan"):
        State(path, {**ME, **other})


def write_foreign(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("no archive")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "array":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    elif kind == "pickle":
        np.savez(path, identity=np.array([{}], object))
    else:
        np.savez(path, x=np.zeros(3))


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "array", "pickle", "images"])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, kind: str):
    path = tmp_path / "state.npz"
    write_foreign(path, kind)
    with pytest.raises(DataError, match=r"state\.npz: not the state of a scan"):
        State(path, ME)


def test_a_cut_state_is_refused(finished: Path, tmp_path: Path):
    path, content = tmp_path / "state.npz", finished.read_bytes()
    for end in (10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:end])
        with pytest.raises(DataError):
            State(path, ME)


@pytest.mark.parametrize("damage", ["missing", "text"])
def test_a_state_without_a_column_is_refused_where_it_is_used(
    few, finished: Path, tmp_path: Path, damage: str
):
    path = tmp_path / "state.npz"
    with np.load(finished) as archive:
        content = dict(archive)
    (name,) = (n for n in content if n.startswith("free") and n.endswith(":cost"))
    if damage == "missing":
        del content[name]
    else:
        content[name] = np.array(["a", "b"])
    np.savez(path, **content)
    with pytest.raises(DataError, match="damaged"):
        run(few, State(path, ME))


def test_no_state_yet_is_an_empty_one(tmp_path: Path):
    assert State(tmp_path / "none.npz", ME).get("free:0") is None
    assert State(None, ME).parts == {}


def test_a_pair_of_classes_is_searched_on_images_of_the_source(few, monkeypatch):
    seen: dict[int, set[int]] = {}
    nearby = Canvas.nearby

    def watched(self, source, count, draw):
        made = nearby(self, source, count, draw)
        seen.setdefault(source, set()).update(self.read(made[: count // 4]).tolist())
        return made

    monkeypatch.setattr(Canvas, "nearby", watched)
    found = run(few)
    assert seen == {source: {source} for source in range(FEW)}
    assert all(source != target for target, source in found.sources.items())
    costs = found.found[module.SOURCE]
    assert costs.classes[costs.cost.argmin()] == TARGET, "the planted one works on each class"


def test_of_many_classes_no_pairs_are_searched(many):
    assert run(many).sources == {}


def test_time_that_ends_among_pairs_keeps_the_forms(few, monkeypatch):
    deadline, state = Deadline(None), State(None, ME)
    put = state.put

    def stopping(part, found):
        put(part, found)
        if part.startswith(module.SOURCE):
            deadline.seconds = 0.0

    monkeypatch.setattr(state, "put", stopping)
    found = hunt(*few, range(FEW), range(FEW), state, deadline, 0)
    assert list(found.found) == ["free", "blob", "window"]
    assert found.missing == tuple(range(FEW))
