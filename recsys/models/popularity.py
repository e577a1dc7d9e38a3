"""Popularity: one list for everybody, or one for each group of users; and the bar that every model must clear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.utils._param_validation import Interval

from recsys._asked import AskedItems, AskedUsers, Parts
from recsys._fields import read_days
from recsys._graphs import Value
from recsys._sparse import Csr, pattern
from recsys._state import Features
from recsys.exceptions import InvalidInputError, examples
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData, UserBatch, as_frame, read_pairs, read_target
from recsys.vectors import VectorRecommender

__all__ = ["Popularity"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Self = TypeVar("Self", bound="Popularity")

# The shares of a group are drawn towards those of everybody as if so many more users were in it.
SMOOTHING = 20.0


class Popularity(VectorRecommender):
    r"""Recommend the items that most users have among their positives.

    The score of an item is the share of users who have it among their positives. With `by` it is the share within the
    user's group, drawn towards that of everybody: :math:`(n_{gi} + 20 p_i) / (n_g + 20)` with :math:`n_{gi}` of the
    :math:`n_g` users of the group. With `half_life` a positive counts :math:`2^{-a/h}` at the age a, measured from the
    latest row; a pair counts once, by its latest row.

    Parameters
    ----------
    by : str or sequence of str, default=None
        Fields of `user_features`, numeric or categorical, whose combinations are the groups. None: one group.
    half_life : float, default=None
        In the unit of the times, in days where they are dates. None: all rows count alike.
    time : str, default="timestamp"
        The further column of `X` that holds the times; with `half_life`.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.

    Attributes
    ----------
    popularity_ : ndarray of shape (n_items,), float32
        The score of each item for who is in no group.
    group_keys_ : ndarray of shape (n_groups,), int64
        The combinations of values that users with positives have.
    group_shares_ : ndarray of shape (n_groups, n_items), float32
        The score of each item in each group.
    recency_ : scipy.sparse.csr_matrix of shape (n_users, n_items), float64
        The age of each positive at `latest_`, the time of the latest; with `half_life`.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": ["ann", "bob", "bob"], "item_id": ["tea", "tea", "milk"]})
    >>> Popularity().fit(X).recommend(["eve"], k=2)[["item_id", "score"]].values.tolist()
    [['tea', 1.0], ['milk', 0.5]]

    Two half-lives later, tea has lost three quarters of its weight:

    >>> X = pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["tea", "tea", "milk"], "day": [0, 0, 2]})
    >>> model = Popularity(half_life=1, time="day").fit(X)
    >>> model.predict(pd.DataFrame({"user_id": [9, 9], "item_id": ["tea", "milk"], "day": [3, 3]})).round(2)
    array([0.17, 0.33], dtype=float32)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "by": [str, "array-like", None],
        "half_life": [Interval(Real, 0, None, closed="neither"), None],
        "time": [str],
        "min_rating": [Real, None],
    }

    group_keys_: Codes
    group_shares_: Floats
    recency_: Csr
    latest_: float

    def __init__(
        self,
        *,
        by: str | Sequence[str] | None = None,
        half_life: float | None = None,
        time: str = "timestamp",
        min_rating: float | None = None,
    ) -> None:
        self.by = by
        self.half_life = half_life
        self.time = time
        self.min_rating = min_rating

    @property
    def _uses_user_features(self) -> bool:  # type: ignore[override]  # as the parameters say
        return self.by is not None

    @property
    def _fields(self) -> list[str]:
        return [] if self.by is None else [self.by] if isinstance(self.by, str) else list(self.by)

    def fit(
        self: Self, X: Any, y: Any = None, *, user_features: Features = None, item_features: Features = None
    ) -> Self:
        """Fit the model; see `BaseRecommender.fit`.

        Raises
        ------
        InvalidInputError
            Also if `by` names no field of `user_features`, or `time` no column of `X` that holds times.
        """
        self._validate_params()
        times = self._times(X)
        super().fit(X, y, user_features=user_features, item_features=item_features)
        if times is not None:
            self._add_recent(X, y, times, None)
        return self

    def partial_fit(
        self: Self, X: Any, y: Any = None, *, user_features: Features = None, item_features: Features = None
    ) -> Self:
        """Go on counting; see `BaseRecommender.partial_fit`."""
        if not hasattr(self, "users_"):
            return self.fit(X, y, user_features=user_features, item_features=item_features)
        self._validate_params()
        times = self._times(X)
        if times is not None and not hasattr(self, "recency_"):
            raise InvalidInputError("`half_life` was not set in `fit`: when its rows happened is not known; fit anew.")
        earlier = self.recency_ if times is not None else None
        super().partial_fit(X, y, user_features=user_features, item_features=item_features)
        if times is not None:
            self._add_recent(X, y, times, earlier)
        return self

    def _times(self, X: Any) -> npt.NDArray[np.float64] | None:
        """The time of each row, in days where it is a date."""
        if self.half_life is None:
            return None
        frame = as_frame(X)
        read_pairs(frame)
        if self.time not in frame.columns[2:]:
            raise InvalidInputError(
                f"`half_life` needs the time of each row: `time` is {self.time!r}, but the further columns of `X` are "
                f"{examples(frame.columns[2:]) or 'none'}; expected one of them, which holds numbers or dates."
            )
        column = frame[self.time]
        times = read_days(column, f"The column {self.time!r} of `X`")
        if np.isnan(times).any():
            raise InvalidInputError(
                f"`X` holds {examples(column[np.isnan(times)])} in the column {self.time!r}; expected a number or date "
                f"in every row, as `half_life` is set."
            )
        return times

    def _add_recent(self, X: Any, y: Any, times: npt.NDArray[np.float64], earlier: Csr | None) -> None:
        frame = as_frame(X)
        wanted = read_target(y, len(frame), self.min_rating) > 0
        assert self.half_life is not None
        latest = float(times[wanted].max(initial=self.latest_ if earlier is not None else -np.inf))
        codes = [
            vocabulary.encode(pd.Index(frame.iloc[wanted, column]))
            for column, vocabulary in enumerate((self.users_, self.items_))
        ]
        ages = [latest - times[wanted]]
        if earlier is not None:
            old = earlier.tocoo()
            codes = [np.concatenate(both) for both in zip((old.row, old.col), codes, strict=True)]
            ages.insert(0, old.data + (latest - self.latest_))
        rows = pd.DataFrame({"user": codes[0], "item": codes[1], "age": np.concatenate(ages)})
        youngest = rows.groupby(["user", "item"], sort=True)["age"].min().reset_index()
        shape = (len(self.users_), len(self.items_))
        self.recency_ = Csr(
            (youngest["age"].to_numpy(np.float64), (youngest["user"].to_numpy(), youngest["item"].to_numpy())), shape
        )
        self.latest_ = latest
        weights = self.recency_.copy()
        weights.data = np.exp2(-weights.data / self.half_life)
        self._count(weights, self.user_features_)

    def _fit(self, data: TrainingData, warm: bool) -> None:
        known = [field.name for field in data.user_features.fields if field.kind in ("numeric", "categorical")]
        strange = [name for name in self._fields if name not in known]
        if strange:
            raise InvalidInputError(
                f"`by` names {examples(strange)}; expected numeric or categorical fields of `user_features`: "
                f"{examples(known) or 'there are none'}."
            )
        # Rows without a half-life have no age: what was known of ages no longer tells of all.
        if hasattr(self, "recency_") and (not warm or self.half_life is None):
            del self.recency_
        self._count(pattern(data.matrix), data.user_features)

    def _count(self, weights: Csr, features: EncodedFeatures) -> None:
        """Shares of everybody and of each group, each positive weighing what `weights` says."""
        hot = np.flatnonzero(np.diff(weights.indptr))
        total = np.asarray(weights.sum(axis=0)).ravel()
        self.popularity_ = (total / max(len(hot), 1)).astype(np.float32)
        keys = self._keys(features.take(hot))
        grouped = np.flatnonzero(keys >= 0)
        self.group_keys_, group = np.unique(keys[grouped], return_inverse=True)
        shape = (len(self.group_keys_), weights.shape[0])
        members = sparse.csr_matrix((np.ones(len(grouped)), (group, hot[grouped])), shape)
        counts, sizes = (members @ weights).toarray(), np.bincount(group, minlength=shape[0])[:, None]
        self.group_shares_ = ((counts + SMOOTHING * self.popularity_) / (sizes + SMOOTHING)).astype(np.float32)

    def _keys(self, features: EncodedFeatures) -> Codes:
        """The combination of values each user has, -1 where no value is known."""
        keys, known = np.zeros(len(features), dtype=np.int64), np.zeros(len(features), dtype=bool)
        n_keys = 1
        by_name = {field.name: field for field in features.fields}
        for name in self._fields:
            field = by_name[name]
            if field.start == field.stop:
                # No user has a value.
                continue
            block = features.block(field).toarray()
            present = block.any(axis=1)
            value = np.where(present, block.argmax(axis=1) + 1, 0)
            width = field.stop - field.start + 1
            n_keys *= width
            if n_keys > np.iinfo(np.int64).max:
                raise InvalidInputError(
                    f"`by` names {len(self._fields)} fields with {n_keys:.1g} combinations of values; expected fewer "
                    f"fields: such groups would hold one user each."
                )
            keys = keys * width + value
            known |= present
        return np.where(known, keys, -1)

    def _groups(self, batch: UserBatch) -> Codes:
        """The group of each user, -1 where there is none."""
        keys = self._keys(batch.features)
        place = np.minimum(np.searchsorted(self.group_keys_, keys), max(len(self.group_keys_) - 1, 0))
        if not len(self.group_keys_):
            return np.full(len(batch), -1, dtype=np.int64)
        return np.where(self.group_keys_[place] == keys, place, -1)

    def _items_appended(self) -> None:
        missing = len(self.items_) - self.group_shares_.shape[1]
        self.group_shares_ = np.pad(self.group_shares_, ((0, 0), (0, missing)))
        if hasattr(self, "recency_"):
            old = self.recency_
            self.recency_ = Csr((old.data, old.indices, old.indptr), (old.shape[0], len(self.items_)))

    def _warn_cold(self, batch: UserBatch, ids: pd.Index) -> None:
        """Nobody is cold to a model that answers everybody."""

    def _user_vectors(self, batch: UserBatch) -> Floats:
        return np.eye(1 + len(self.group_keys_), dtype=np.float32)[self._groups(batch) + 1]

    def _user_graph(self, asked: AskedUsers) -> Value:
        """What `_user_vectors` computes: `_keys`, and which group has the same."""
        features = asked.features
        keys = known = features.lengths.as_type(np.int64) * 0
        by_name = {field.name: field for field in self.user_features_.fields}
        for field in map(by_name.__getitem__, self._fields):
            if field.start < field.stop:
                columns = np.arange(field.start, field.stop)
                block = (features.columns.expand(2).equals(columns) * features.values.expand(2)).sum(1).squeeze(1)
                present = block.exceeds(0.0).max(1).as_type(np.int64)
                value = present * (asked.graph.apply("ArgMax", block, axis=1, keepdims=1) + 1)
                keys = keys * (len(columns) + 1) + value
                known = known.at_least(present)
        if not len(self.group_keys_):
            return known.as_type(np.float32) * 0.0 + 1.0
        member = keys.equals(self.group_keys_[None]) * known.as_type(np.float32)
        return asked.graph.concat([1.0 - member.sum(1), member], 1)

    def _user_parts(self, asked: AskedUsers) -> Parts:
        """All of it is told by one list or the other."""
        vectors, parts = self._user_graph(asked), Parts(asked.graph)
        by_all = vectors.columns(0, 1)
        lists = [("item", name) for name in ("popularity", f"popularity by {', '.join(self._fields)}")]
        weights = asked.graph.concat([by_all, 1.0 - by_all], 1)
        parts.add(lists, weights.expand(2) * vectors.expand(1), weights)
        return parts

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """Nobody has a new item."""
        return {"vectors": asked.nothing(1 + len(self.group_keys_))}

    def _item_parts(self) -> tuple[Floats, ...]:
        return self.popularity_[:, None], self.group_shares_.T

    def _item_embeddings(self) -> Floats:
        """Nothing tells items apart."""
        return self.popularity_[:, None][:, :0]

    def _similarity(self, items: Codes) -> Floats:
        return np.tile(self.popularity_, (len(items), 1))

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        groups = self._groups(batch)[rows]
        shares = np.concatenate([self.popularity_[None], self.group_shares_])
        everybody = groups < 0
        field: Iterable[str] = np.where(everybody, "popularity", f"popularity by {', '.join(self._fields)}")
        return pd.DataFrame(
            {
                "row": np.arange(len(rows)),
                "source": "item",
                "field": field,
                "weight": np.float32(1),
                "contribution": shares[groups + 1, items],
            }
        )
