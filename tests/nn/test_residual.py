from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from recsys._sparse import Csr, empty_csr, pattern
from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.interactions import TrainingData
from recsys.nn import residual
from recsys.nn.residual import ResidualTower, train_residual
from recsys.nn.towers import FieldBags, bags_of, sizes_of
from recsys.nn.training import Problem

N_USERS, N_ITEMS, WIDTH = 60, 24, 6


def data(seed: int = 0) -> TrainingData:
    """Users of two clubs; those of one club take items of one half."""
    rng = np.random.default_rng(seed)
    club = rng.integers(2, size=N_USERS)
    taken = rng.random((N_USERS, N_ITEMS)) < np.where(np.arange(N_ITEMS) % 2 == club[:, None], 0.6, 0.1)
    frame = pd.DataFrame({"club": np.array(["chess", "tennis"])[club]})
    clubs = pd.DataFrame({"club": ["chess", "tennis"]})
    features = FeatureEncoder.fit(clubs, {"club": "categorical"}, "|").transform(frame, "user_features")
    return TrainingData(Csr(taken.astype(np.float32)), features, EncodedFeatures.empty(N_ITEMS), None)


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed + 1)
    items = rng.normal(size=(N_ITEMS, WIDTH)).astype(np.float32) / 2
    items[:, 0] = np.where(np.arange(N_ITEMS) % 2 == 0, 0.5, -0.5)
    # What every user of the closed form gets: the mean history, as near as it can be told.
    mean = np.linalg.lstsq(items, data(seed).matrix.toarray().mean(0), rcond=None)[0]
    return items, mean.astype(np.float32)


def closed_form(shown: Csr, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = shown.shape[0]
    return np.tile(vectors()[1], (n, 1)), np.ones((n, 1), dtype=np.float32)


def trained(seed: int = 0) -> tuple[ResidualTower, list[float]]:
    found = data()
    tower = ResidualTower(sizes_of(found, WIDTH), seed)
    curve = train_residual(tower, Problem(found), closed_form, vectors()[0], seed)
    return tower, curve


def correct(tower: ResidualTower, history: Csr, features: EncodedFeatures) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(tower(FieldBags(features), bags_of(None, len(features)), history).numpy())


def test_it_starts_at_nothing() -> None:
    found = data()
    tower = ResidualTower(sizes_of(found, WIDTH), 0).eval()
    np.testing.assert_array_equal(correct(tower, pattern(found.matrix), found.user_features), 0)


def test_it_learns_what_the_closed_form_leaves_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "LEARNING_RATE", 0.01)
    tower, curve = trained()
    assert np.mean(curve[-20:]) < np.mean(curve[:20])
    new = data(seed=5)
    nothing = empty_csr(N_USERS, N_ITEMS)
    items, mean = vectors()
    scores = (mean + correct(tower, nothing, new.user_features)) @ items.T
    of_club = new.user_features.matrix.toarray().argmax(1)
    chess, tennis = (scores[of_club == club].mean(0) for club in (0, 1))
    even = np.arange(N_ITEMS) % 2 == 0
    assert (chess - tennis)[even].mean() > 0.1 > -0.1 > (chess - tennis)[~even].mean()


def test_the_loss_is_the_sum_over_what_is_not_shown() -> None:
    found = data()
    problem, (items, _) = Problem(found), vectors()
    tower = ResidualTower(sizes_of(found, WIDTH), 0)
    with torch.no_grad():
        tower.out.add_(0.05)
    tower.eval()
    chosen = np.arange(0, N_USERS, 3)
    loss = residual._loss(
        tower, problem, closed_form, chosen, torch.from_numpy(items), torch.from_numpy(items.T @ items),
        np.random.default_rng(7),
    )  # fmt: skip
    shown, _ = problem.draw(chosen, np.random.default_rng(7))
    base = closed_form(shown, chosen)[0]
    corrected = base + correct(tower, shown, found.user_features.take(chosen))
    total, weights = 0.0, 0.0
    for row, user in enumerate(chosen):
        hidden = shown[[row]].toarray()[0] > 0
        wanted = found.matrix[[user]].toarray()[0][~hidden]
        plain, score = (items @ part[row] for part in (base, corrected))
        scale = np.clip((plain[~hidden] @ wanted) / (plain[~hidden] @ plain[~hidden]), 0.05, 20)
        weight = found.matrix[[user]].nnz ** -0.5
        total += weight * ((wanted - scale * score[~hidden]) ** 2).sum()
        weights += weight
    assert loss.item() == pytest.approx(total / weights, rel=1e-4)


def test_same_seed_same_bits_whatever_was_drawn_before() -> None:
    first, curve = trained()
    torch.rand(5)
    second, again = trained()
    assert curve == again
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.out, trained(seed=1)[0].out)


def test_divergence_is_told_and_nothing_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "LEARNING_RATE", 1e30)
    with pytest.warns(ConvergenceWarning, match=r"correction diverged in epoch \d+"):
        tower, curve = trained()
    assert not np.isfinite(curve[-1])
    found = data()
    np.testing.assert_array_equal(correct(tower, pattern(found.matrix), found.user_features), 0)


def test_items_that_joined_later_say_nothing() -> None:
    tower, found = trained()[0], data()
    longer = Csr(np.column_stack([found.matrix.toarray(), np.ones((N_USERS, 3), np.float32)]))
    np.testing.assert_array_equal(
        correct(tower, longer, found.user_features), correct(tower, pattern(found.matrix), found.user_features)
    )


def test_stored_and_restored() -> None:
    tower, found = trained()[0], data()
    restored = ResidualTower.from_state(tower.to_state())
    history = pattern(found.matrix)
    np.testing.assert_array_equal(
        correct(restored, history, found.user_features), correct(tower, history, found.user_features)
    )
