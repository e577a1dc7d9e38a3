"""A run that was killed goes on, processes beside each other change nothing, and no result passes for another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recsys import EASE, BaseRecommender, ContentEASE, LightGBMRecommender, MatrixFactorization, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluation, Evaluator, LeaveLastOut, UserColdSplit
from recsys.exceptions import InvalidInputError, InvalidTypeError, PersistenceError, RecsysWarning

ROOT = Path(__file__).resolve().parents[2]
SPLITTERS = [LeaveLastOut(), UserColdSplit(k=(0, 5))]
OPTIONS: dict[str, Any] = {"seeds": (0, 1), "n_resamples": 20}


def models() -> dict[str, BaseRecommender]:
    return {"Popularity": Popularity(), "MF": MatrixFactorization(n_factors=4, max_iter=2), "EASE": EASE(l2=20.0)}


def make_data() -> Any:
    return make_movielens_like(n_users=60, n_items=40, n_interactions=1000, random_state=0)


@pytest.fixture(scope="module")
def data() -> Any:
    return make_data()


@pytest.fixture(scope="module")
def whole(data: Any) -> Evaluation:
    return Evaluator(SPLITTERS, **OPTIONS).evaluate(models(), data)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes of the models that are fitted, one entry a fit."""
    fitted: list[str] = []
    for cls in (Popularity, EASE, MatrixFactorization):

        def fit(self: Any, *args: Any, _fit: Any = cls.fit, **features: Any) -> Any:
            fitted.append(type(self).__name__)
            return _fit(self, *args, **features)

        monkeypatch.setattr(cls, "fit", fit)
    return fitted


def assert_same(found: Evaluation, expected: Evaluation, *, costs: bool = False) -> None:
    """To the last bit and dtype; what was measured by a clock only where that is asked for."""
    pd.testing.assert_frame_equal(found.per_user, expected.per_user, check_exact=True)
    pd.testing.assert_frame_equal(found.splits, expected.splits)
    pd.testing.assert_frame_equal(found.failures, expected.failures)
    pd.testing.assert_frame_equal(found.table(), expected.table(), check_exact=True)
    assert (found.metrics, found.baseline) == (expected.metrics, expected.baseline)
    assert list(found.costs) == list(expected.costs)
    measured = [] if costs else ["fit_seconds", "recommend_seconds", "peak_mib"]
    pd.testing.assert_frame_equal(found.costs.drop(columns=measured), expected.costs.drop(columns=measured))


KILLED = """
import os, signal, sys
from recsys import EASE
from recsys.evaluation import Evaluator
from tests.evaluation.test_runs import OPTIONS, SPLITTERS, make_data, models

whole = EASE.recommend
asked = []

def recommend(self, *args, **kwargs):
    asked.append(0)
    if len(asked) == 3:
        os.kill(int(sys.argv[2]) or os.getpid(), signal.SIGKILL)
        signal.pause()
    return whole(self, *args, **kwargs)

EASE.recommend = recommend
Evaluator(SPLITTERS, store=sys.argv[1], **OPTIONS).evaluate(models(), make_data())
"""


def test_a_run_that_was_killed_goes_on_and_gives_the_same(
    data: Any, whole: Evaluation, tmp_path: Path, fits: list[str]
) -> None:
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", KILLED, str(store), "0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Six results of Popularity, six of MF, and two of EASE: it was killed when it was asked a third time.
    assert len(list(store.iterdir())) == 14
    resumed = Evaluator(SPLITTERS, store=store, **OPTIONS).evaluate(models(), data)
    assert_same(resumed, whole)
    # The second scenario of its training set, and the two training sets of the other seed.
    assert fits == ["EASE"] * 3
    again = Evaluator(SPLITTERS, store=store, n_jobs=2, **OPTIONS).evaluate(models(), data)
    assert fits == ["EASE"] * 3
    assert_same(again, resumed, costs=True)


KILLED_BESIDE = """
import os, signal, sys
from recsys import MatrixFactorization
from recsys.evaluation import Evaluator
from tests.evaluation.test_runs import OPTIONS, SPLITTERS, make_data, models

class Fatal(MatrixFactorization):
    parent = os.getpid()

    def fit(self, *args, **kwargs):
        os.kill(self.parent, signal.SIGKILL)
        return super().fit(*args, **kwargs)

chosen = models() | {"Fatal": Fatal()}
Evaluator(SPLITTERS, store=sys.argv[1], n_jobs=2, **OPTIONS).evaluate(chosen, make_data())
"""


def test_a_run_of_processes_that_was_killed_goes_on(data: Any, whole: Evaluation, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", KILLED_BESIDE, str(store)], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(list(store.iterdir())) > 0
    assert_same(Evaluator(SPLITTERS, store=store, n_jobs=2, **OPTIONS).evaluate(models(), data), whole)


class Failing(Popularity):
    """Fails when it is asked for new users."""

    def recommend(self, users: Any, k: int = 10, *, interactions: Any = None, **rest: Any) -> pd.DataFrame:
        if interactions is not None:
            raise RuntimeError("no answer")
        return super().recommend(users, k, interactions=interactions, **rest)


class Fatal(Popularity):
    """Ends its process."""

    def fit(self, X: Any, y: Any = None, **features: Any) -> Fatal:
        os._exit(7)


def test_processes_beside_each_other_give_what_one_gives(data: Any) -> None:
    chosen = {
        **models(),
        "Failing": Failing(),
        "ContentEASE": ContentEASE(n_factors=8),
        "LightGBM": LightGBMRecommender(n_estimators=3, n_factors=4, n_folds=2),
    }
    found = []
    for n_jobs in (None, 2):
        with pytest.warns(
            RecsysWarning, match=r"Failing failed in user-cold k=5, seed [01]: RuntimeError: no "
        ) as told:
            found.append(Evaluator(SPLITTERS, n_jobs=n_jobs, **OPTIONS).evaluate(chosen, data))
        assert len(told) == 2
    assert_same(found[1], found[0])
    assert found[0].failures["error"].tolist() == ["RuntimeError: no answer"] * 2
    assert (found[1].costs[["fit_seconds", "recommend_seconds"]] > 0).all(axis=None)
    assert (found[1].costs["peak_mib"] < 2000).all()


def test_a_model_that_ends_its_process_keeps_its_row(data: Any, whole: Evaluation) -> None:
    with pytest.warns(RecsysWarning, match=r"Fatal failed in .*: TerminatedWorkerError") as told:
        found = Evaluator(SPLITTERS, n_jobs=2, **OPTIONS).evaluate({**models(), "Fatal": Fatal()}, data)
    assert len(told) == 6
    assert found.failures["model"].tolist() == ["Fatal"] * 6
    pd.testing.assert_frame_equal(found.per_user, whole.per_user, check_exact=True)
    assert found.table().query("model == 'Fatal'")["error"].str.startswith("TerminatedWorkerError").all()


def test_failures_are_tried_again(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(SPLITTERS, store=tmp_path, **OPTIONS)
    chosen = {"Popularity": Popularity(), "Failing": Failing()}
    with pytest.warns(RecsysWarning, match="Failing failed in user-cold k=5") as told:
        first = evaluator.evaluate(chosen, data)
    assert len(told) == 2
    monkeypatch.setattr(Failing, "recommend", Popularity.recommend)
    second = evaluator.evaluate(chosen, data)
    assert second.failures.empty
    assert len(second.costs) == len(first.costs) + 2


@pytest.mark.parametrize("kind", [int, str, "Int64", "category", lambda user: (user, "x")])
def test_what_is_kept_has_the_labels_and_dtypes_of_what_was_found(kind: Any, data: Any, tmp_path: Path) -> None:
    users = data.interactions["user_id"]
    labels = users.map(kind) if callable(kind) and kind not in (int, str) else users.astype(kind)
    rows = {"interactions": data.interactions.assign(user_id=labels)}
    evaluator = Evaluator([LeaveLastOut(), LeaveLastOut(n_negatives=11)], store=tmp_path, n_resamples=20)
    first = evaluator.evaluate({"Popularity": Popularity()}, rows)
    assert_same(evaluator.evaluate({"Popularity": Popularity()}, rows), first, costs=True)


def changed(data: Any, part: str, change: Any) -> dict[str, Any]:
    frames = {name: data[name] for name in ("interactions", "users", "items")}
    return frames | {part: change(frames[part])}


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"user_id": str, "item_id": str})


@pytest.fixture(scope="module")
def kept(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was used; copy it."""
    store = tmp_path_factory.mktemp("kept")
    chosen: dict[str, BaseRecommender] = {"EASE": EASE(l2=20.0), "Popularity": Popularity()}
    Evaluator(SPLITTERS, store=store, **OPTIONS).evaluate(chosen, data)
    return store


@pytest.mark.parametrize(
    ("change", "n_fits"),
    [
        ({}, 0),
        ({"verbose": True, "n_resamples": 30, "confidence": 0.9, "seeds": (0, 1), "baseline": "EASE"}, 0),
        ({"metrics": ["HR", "Recall", "NDCG", "MRR"]}, 0),
        ({"k": 5}, 4),
        ({"metrics": ["HR"]}, 4),
        ({"seeds": (0, 1, 2)}, 2),
        ({"min_rating": 2}, 4),
        ({"splitters": [LeaveLastOut(), UserColdSplit(k=(0,))]}, 0),
        ({"splitters": [LeaveLastOut(n_last=2)]}, 4),
        ({"models": {"EASE": EASE(l2=20), "Popularity": Popularity()}}, 2),
        ({"models": {"EASE": EASE(l2=21.0), "Popularity": Popularity()}}, 2),
        ({"models": {"EASE": Popularity(), "Popularity": Popularity()}}, 2),
        ({"data": ("users", lambda users: users.assign(age=users["age"] + (users.index == 3)))}, 4),
        ({"data": ("items", lambda items: None)}, 4),
        ({"data": ("interactions", lambda rows: rows.iloc[::-1])}, 4),
    ],
)
def test_a_result_of_anything_else_is_computed(
    change: dict[str, Any], n_fits: int, data: Any, kept: Path, tmp_path: Path, fits: list[str]
) -> None:
    store = shutil.copytree(kept, tmp_path / "store")
    options = dict(change)
    rows = changed(data, *options.pop("data")) if "data" in options else data
    splitters = options.pop("splitters", [LeaveLastOut()])
    chosen = options.pop("models", {"EASE": EASE(l2=20.0), "Popularity": Popularity()})
    found = Evaluator(splitters, store=store, **{**OPTIONS, **options}).evaluate(chosen, rows)
    assert len(fits) == n_fits
    fresh = Evaluator(splitters, **{**OPTIONS, **options}).evaluate(chosen, rows)
    assert_same(found, fresh)


def test_labels_of_another_kind_are_others(data: Any, tmp_path: Path, fits: list[str]) -> None:
    for rows in (data.interactions, as_text(data.interactions)):
        evaluator = Evaluator([LeaveLastOut()], store=tmp_path, n_resamples=20)
        found = evaluator.evaluate({"Popularity": Popularity()}, {"interactions": rows})
        assert found.per_user["user_id"].dtype == rows["user_id"].dtype
    assert len(fits) == 2


def test_a_model_whose_code_has_changed_is_computed(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from recsys import Popularity\n"
        "class Mine(Popularity):\n"
        "    def fit(self, X, y=None, **features):\n"
        "        {log}.append(len(X))\n"
        "        return super().fit(X, y, **features)\n"
    )
    (tmp_path / "mine.py").write_text("log = []\n" + source.format(log="log"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine  # type: ignore[import-not-found]

    evaluator = Evaluator([LeaveLastOut()], store=tmp_path / "store", n_resamples=20)
    for n_fits in (1, 1):
        evaluator.evaluate({"Popularity": mine.Mine()}, data)
        assert len(mine.log) == n_fits
    (tmp_path / "mine.py").write_text("# another\nlog = []\n" + source.format(log="log"))
    evaluator.evaluate({"Popularity": mine.Mine()}, data)
    assert len(mine.log) == 2

    def rewritten(self: Any, *args: Any, **rest: Any) -> pd.DataFrame:
        (tmp_path / "mine.py").write_text(f"# the {len(mine.log)}th\n")
        return Popularity.recommend(self, *args, **rest)

    # What was written while it ran is not what ran.
    monkeypatch.setattr(mine.Mine, "recommend", rewritten, raising=False)
    for n_fits in (3, 4):
        (tmp_path / "mine.py").write_text(f"# the {n_fits}th before\n")
        evaluator.evaluate({"Popularity": mine.Mine()}, data)
        assert len(mine.log) == n_fits
    evaluator.evaluate({"Popularity": mine.Mine()}, data)
    assert len(mine.log) == 5


@pytest.mark.parametrize("damage", ["altered", "truncated", "removed", "manifest", "mixed up"])
def test_a_damaged_store_is_refused_before_any_work(damage: str, data: Any, tmp_path: Path, fits: list[str]) -> None:
    evaluator = Evaluator([LeaveLastOut()], store=tmp_path, n_resamples=20)
    evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE()}, data)
    fits.clear()
    folders = sorted(tmp_path.iterdir())
    file = next(folders[0].glob("manifest.json" if damage == "manifest" else "arrays-*"))
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    elif damage == "mixed up":
        for part in folders[0].iterdir():
            part.unlink()
        for part in folders[1].iterdir():
            (folders[0] / part.name).write_bytes(part.read_bytes())
    else:
        file.write_bytes(content[:-1] if damage == "truncated" else content[:-9] + b"X" + content[-8:])
    message = (
        rf"`store` holds a damaged result, .*{folders[0].name} \(.* in leave-last-out, seed 0\): .* Remove that folder"
    )
    with pytest.raises(PersistenceError, match=message):
        evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE()}, data)
    assert fits == []
    for part in folders[0].iterdir():
        part.unlink()
    evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE()}, data)
    assert len(fits) == 1


class Odd(Popularity):
    """Has a parameter that no file can hold."""

    def __init__(self, lock: Any = None) -> None:
        super().__init__()
        self.lock = lock


def test_what_is_no_store_is_refused(data: Any, tmp_path: Path) -> None:
    def evaluate(store: Any, **chosen: BaseRecommender) -> Any:
        return Evaluator([LeaveLastOut()], store=store).evaluate({"Popularity": Popularity(), **chosen}, data)

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        PersistenceError, match=r"`store` \(.*\) holds what no evaluator wrote: 'notes.txt'; expected a"
    ):
        evaluate(tmp_path)
    with pytest.raises(PersistenceError, match=r"`store` \(.*notes.txt\) cannot be used: .* choose another"):
        evaluate(tmp_path / "notes.txt")
    with pytest.raises(PersistenceError, match=r"`store` \(.*\) cannot be used: embedded null byte; .* choose another"):
        evaluate("nul\0")
    with pytest.raises(InvalidTypeError, match="`store` is 3; expected the name of a directory"):
        evaluate(3)
    with pytest.raises(InvalidInputError, match="`store` cannot tell the parameters of model 'Odd' from others"):
        evaluate(tmp_path / "new", Odd=Odd(threading.Lock()))
    with pytest.raises(InvalidInputError, match="whether a function is still the same, and model 'Odd' has 'lock'"):
        evaluate(tmp_path / "new", Odd=Odd(len))


def test_frames_and_groups_are_kept_too_and_functions_are_not(data: Any, tmp_path: Path, fits: list[str]) -> None:
    X = data.interactions[["user_id", "item_id"]]
    [split] = LeaveLastOut().splits(X, groups=data.interactions["timestamp"])
    model = Popularity().fit(X.iloc[split.train])
    lists = model.recommend(data.interactions["user_id"].unique(), k=10)
    fits.clear()
    evaluator = Evaluator([LeaveLastOut()], groups=("history",), store=tmp_path, **{**OPTIONS, "seeds": (0,)})
    first = evaluator.evaluate({"Popularity": Popularity(), "Theirs": lists}, data)
    assert len(fits) == 1
    assert_same(evaluator.evaluate({"Popularity": Popularity(), "Theirs": lists}, data), first, costs=True)
    assert len(fits) == 1
    assert first.per_user["group"].str.startswith("history=").any()
    other = lists[lists["rank"] <= 9]
    found = evaluator.evaluate({"Popularity": Popularity(), "Theirs": other}, data)
    assert (
        found.values("leave-last-out", "HR@10")["Theirs"].sum()
        < first.values("leave-last-out", "HR@10")["Theirs"].sum()
    )
    with pytest.raises(InvalidInputError, match="whether a function is still the same, and model 'Asked' has 'source'"):
        evaluator.evaluate({"Popularity": Popularity(), "Asked": lambda *_, **__: lists}, data)


def test_frames_and_functions_are_judged_in_processes(data: Any) -> None:
    def popular(train: pd.DataFrame, users: Any, k: int, *, candidates: Any, **_: Any) -> pd.DataFrame:
        return Popularity().fit(train[["user_id", "item_id"]]).recommend(users, k, candidates=candidates)

    chosen = {"Popularity": Popularity(), "Asked": popular}
    options = {**OPTIONS, "seeds": (0,)}
    found = [Evaluator([LeaveLastOut()], n_jobs=n_jobs, **options).evaluate(chosen, data) for n_jobs in (None, 2)]
    assert_same(found[1], found[0])
    assert set(found[0].per_user["model"]) == {"Popularity", "Asked"}


@pytest.mark.parametrize(("n_jobs", "message"), [(0, "`n_jobs` is 0"), (1.5, "`n_jobs` is 1.5; expected a whole")])
def test_a_number_of_processes_is_checked(n_jobs: Any, message: str, data: Any) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Evaluator([LeaveLastOut()], n_jobs=n_jobs).evaluate({"Popularity": Popularity()}, data)


def test_progress_counts_what_was_kept(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n_jobs, start in ((2, "0/4"), (None, "4/8")):
        options = {**OPTIONS, "seeds": (0, 1) if n_jobs else (0, 1, 2, 3)}
        evaluator = Evaluator([LeaveLastOut()], store=tmp_path, n_jobs=n_jobs, verbose=True, **options)
        evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE()}, data)
        shown = capsys.readouterr().err
        assert start in shown
        assert ("4/4" if n_jobs else "8/8") in shown
