"""A new user and a new item get recommendations from the installed wheel, also after a save and a load."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

import recsys

assert Path(recsys.__file__).resolve().is_relative_to(Path.cwd()), f"{recsys.__file__} is not the installed wheel"
assert (Path(recsys.__file__).parent / "py.typed").is_file()

X = pd.DataFrame({"user_id": ["ann", "ann", "bob", "bob", "cat"], "item_id": ["tea", "jam", "tea", "rum", "jam"]})
items = pd.DataFrame({"kind": ["drink", "food", "drink", "food"]}, index=["tea", "jam", "rum", "pie"])
for model in (
    recsys.Popularity(),
    recsys.EASE(),
    recsys.ContentEASE(n_factors=2, l2=0.1, random_state=0),
    recsys.ContentKNN(),
    recsys.MatrixFactorization(n_factors=2, l2=0.1, random_state=0),
    recsys.AutoRec(n_factors=4, max_iter=1, random_state=0),
    recsys.DeepFM(n_factors=4, max_iter=1, random_state=0),
    recsys.LightGBMRecommender(n_estimators=2, n_factors=2, random_state=0),
    recsys.ContrastiveRecommender(n_factors=4, max_iter=1, random_state=0),
):
    model.fit(X, item_features=items)
    hot = model.recommend(["ann"], k=2)
    new = model.recommend(["new"], k=2, interactions=pd.DataFrame({"user_id": ["new"], "item_id": ["tea"]}))
    assert set(hot["item_id"]) == {"rum", "pie"}, hot
    assert "tea" not in set(new["item_id"]), new
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        pd.testing.assert_frame_equal(recsys.load(folder).recommend(["ann"], k=2), hot)
