"""Every estimator: bad input is refused before any work, and the message says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from recsys.base import BaseRecommender
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.interactions import TrainingData
from tests.contract.refusals import CONTEXT, EVERYTHING
from tests.contract.suite import CASES, NAMES, World, class_name, fit, fitted, make_world

every = pytest.mark.parametrize("name", NAMES)


def _check(raised: pytest.ExceptionInfo[Exception], parts: tuple[str, ...], **known: Any) -> None:
    message = str(raised.value)
    for part in parts:
        expected = part
        for key, value in known.items():
            expected = expected.replace("{" + key + "}", str(value))
        assert expected in message
    # No placeholder was left unfilled, and no list of everything was poured into it.
    assert not re.search(r"\{[a-z_.]+\}", message)
    assert len(message) < 420


@every
@pytest.mark.parametrize("title", EVERYTHING)
def test_bad_input_is_refused(name: str, title: str) -> None:
    model, world = fitted(name)
    refusal = EVERYTHING[title]
    with pytest.raises(refusal.error) as raised:
        refusal.call(model, world)
    assert isinstance(raised.value, InvalidInputError)
    assert isinstance(raised.value, ValueError)
    _check(raised, refusal.parts, n=len(world.X), n_less=len(world.X) - 1, name=class_name(name))


@every
@pytest.mark.parametrize("title", CONTEXT)
def test_bad_context_is_refused(name: str, title: str) -> None:
    model, world = fitted(name, context=True)
    refusal = CONTEXT[title]
    with pytest.raises(refusal.error) as raised:
        refusal.call(model, world)
    _check(raised, refusal.parts)


@every
@pytest.mark.parametrize("title", [title for title in EVERYTHING if title.startswith(("X", "features"))])
def test_a_refused_fit_leaves_the_estimator_as_it_was(name: str, title: str) -> None:
    refusal = EVERYTHING[title]
    world = make_world()
    blank = CASES[name].make()
    before = set(vars(blank))
    with pytest.raises(refusal.error):
        refusal.call(blank, world)
    assert set(vars(blank)) == before
    model, _ = fitted(name)
    state = {key: id(value) for key, value in vars(model).items() if key.endswith("_")}
    with pytest.raises(refusal.error):
        refusal.call(model, world)
    assert {key: id(value) for key, value in vars(model).items() if key.endswith("_")} == state


@every
def test_a_refused_partial_fit_leaves_the_estimator_as_it_was(name: str) -> None:
    model, world = fitted(name)
    expected = model.recommend(world.hot_users, k=1000)
    for X, y, features in [
        (world.X.assign(hour=1), world.y, None),
        (world.X, world.y[1:], None),
        (world.X.iloc[:0], None, None),
        (world.X, world.y, world.users.assign(size=1)),
    ]:
        with pytest.raises(InvalidInputError):
            model.partial_fit(X, y, user_features=features)
    pd.testing.assert_frame_equal(model.recommend(world.hot_users, k=1000), expected)


@every
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_breaks_off_leaves_the_estimator_as_it_was(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, world = fitted(name)
    expected = model.recommend(world.hot_users, k=1000)
    learn = type(model)._fit

    def interrupted(self: BaseRecommender, data: TrainingData, warm: bool) -> None:
        learn(self, data, warm)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "_fit", interrupted)
    more = make_world(seed=4, n_users=50)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(more.X, more.y)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(model.recommend(world.hot_users, k=1000), expected)
    assert len(model.users_) == len(world.users)
    blank = CASES[name].make()
    monkeypatch.setattr(type(model), "_fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(blank, method)(more.X, more.y)
    with pytest.raises(NotFittedError):
        blank.recommend([1000])


NOT_FITTED: dict[str, Callable[[BaseRecommender, World], Any]] = {
    "predict": lambda m, w: m.predict(w.X),
    "recommend": lambda m, w: m.recommend([1000]),
    "similar_items": lambda m, w: m.similar_items([1]),
    "explain": lambda m, w: m.explain(w.X),
    "score": lambda m, w: m.score(w.X, w.y),
    "add_items": lambda m, w: m.add_items([1]),
    "save": lambda m, w: m.save("never written"),
}


@every
@pytest.mark.parametrize("method", NOT_FITTED)
def test_a_model_that_was_not_fitted_says_so(name: str, method: str) -> None:
    with pytest.raises(NotFittedError, match=f"This {class_name(name)} instance is not fitted yet. Call 'fit'"):
        NOT_FITTED[method](CASES[name].make(), make_world())


@every
def test_a_dict_is_no_name_for_users(name: str) -> None:
    model, _ = fitted(name)
    with pytest.raises(InvalidTypeError, match=r"`users` is a dict; expected one id after the other"):
        model.recommend({1000: "ann"})


@every
def test_fitting_after_a_refusal_works(name: str) -> None:
    world = make_world()
    model = CASES[name].make()
    with pytest.raises(InvalidInputError):
        model.fit(world.X.assign(rating=world.y))
    expected, _ = fitted(name)
    np.testing.assert_array_equal(fit(model, world).predict(world.X), expected.predict(world.X))
