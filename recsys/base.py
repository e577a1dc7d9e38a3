"""The contract of every recommender: fit, ask, explain, score. Models add the scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted, validate_data

from recsys._requests import allowed_items, excluded_items, read_context, read_k
from recsys._sparse import Csr, empty_csr, pattern, positives, to_csr
from recsys._state import (
    COLD,
    FEW_SHOT,
    Codes,
    EstimatorState,
    Features,
    Floats,
    OnCold,
    fit_context,
    grown,
    positive_rows,
    refuse_without_positives,
)
from recsys.evaluation.metrics import Hits, hit_matrix, ndcg
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.features import EncodedFeatures, fit_features
from recsys.interactions import PATHS, ContextRows, TrainingData, UserBatch, as_frame, read_pairs, read_target
from recsys.topk import TopK, row_chunks, top_k_chunks
from recsys.vocabulary import Vocabulary, as_ids

__all__ = ["BaseRecommender"]

Self = TypeVar("Self", bound="BaseRecommender")


class BaseRecommender(EstimatorState):
    """Base of every estimator; see the hooks `_fit`, `_score_batch` and `_explain_pairs` at the end.

    Attributes
    ----------
    users_, items_ : Vocabulary
        Who and what is known; the order of `items_` is the catalogue order.
    history_ : scipy.sparse.csr_matrix of shape (n_users, n_items)
        What each user has seen: the weight of a positive, an explicit 0 for what was only seen.
    popularity_ : ndarray of shape (n_items,), float32
        The share of users who have an item among their positives: the prior.
    user_features_, item_features_ : EncodedFeatures
        Rows aligned with `users_` and `items_`.
    n_features_in_ : int
        Columns of `X`.
    """

    def fit(
        self: Self,
        X: Any,
        y: Any = None,
        *,
        user_features: Features = None,
        item_features: Features = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, >= 2)
            Column 0 holds users, column 1 items, any further column is context, which some models use. Ids are labels
            of any kind.
        y : array-like of shape (n_samples,), default=None
            Weights or ratings: rows above 0 (and not below `min_rating`) are positives, the others only count as seen.
            None: every row is a positive. Rows of the same pair add up, those of `partial_fit` too.
        user_features, item_features : DataFrame or FeatureTable, default=None
            One row an entity. Entities without interactions are warm: they can be asked for and recommended.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            If the data is not what is described here.

        Warns
        -----
        DataWarning
            If a column of features holds lists that were written as text, which count as one category each.
        """
        self._validate_params()
        frame = as_frame(X)
        pairs = read_pairs(frame)
        weights = read_target(y, len(pairs), self.min_rating)
        refuse_without_positives(weights, self.min_rating)
        names = ("user_id", "item_id") if frame is not X else (str(frame.columns[0]), str(frame.columns[1]))
        users, user_codes = Vocabulary.from_values(pairs.users)
        items, item_codes = Vocabulary.from_values(pairs.items)
        n = len(pairs)
        user_encoder, users, encoded_users = fit_features(user_features, "user_features", names[0], users, n)
        item_encoder, items, encoded_items = fit_features(item_features, "item_features", names[1], items, n)
        context_encoder, context = fit_context(pairs)
        with ExitStack() as undo:
            # A fit that fails leaves the estimator as it was.
            undo.callback(self._restore, dict(vars(self)))
            validate_data(self, X, skip_check_array=True, reset=True)
            self.id_names_ = names
            self.users_, self.items_ = users, items
            self.user_encoder_, self.item_encoder_, self.context_encoder_ = user_encoder, item_encoder, context_encoder
            self.user_features_, self.item_features_ = encoded_users, encoded_items
            self.history_ = to_csr(user_codes, item_codes, weights, (len(users), len(items)))
            self._learn(positive_rows(user_codes, item_codes, weights, context), warm=False)
            undo.pop_all()
        return self

    def partial_fit(
        self: Self,
        X: Any,
        y: Any = None,
        *,
        user_features: Features = None,
        item_features: Features = None,
    ) -> Self:
        """Go on fitting with new interactions; users and items that are new join.

        Parameters
        ----------
        X, y, user_features, item_features
            As in `fit`; the features are those of new entities, or of known ones to be replaced.

        Returns
        -------
        self

        Warns
        -----
        DataWarning
            If all users or items are of another type than those known: text, say, where these are numbers.
        """
        if not hasattr(self, "users_"):
            return self.fit(X, y, user_features=user_features, item_features=item_features)
        self._validate_params()
        pairs = self._read_pairs(X)
        weights = read_target(y, len(pairs), self.min_rating)
        new_users = self._encode(user_features, "user_features")
        new_items = self._encode(item_features, "item_features")
        if new_items is None:
            self._refuse_other_labels(pairs.items)
        for ids, new, known, side in (
            (pairs.users, new_users, self.users_, "user"),
            (pairs.items, new_items, self.items_, "item"),
        ):
            self._warn_of_other_labels(ids, "X", known)
            if new is not None:
                self._warn_of_other_labels(new[0], f"{side}_features", known, ids)
        context = None if self.context_encoder_ is None else self.context_encoder_.transform(pairs.context, "X")
        old = self.history_.tocoo()
        with ExitStack() as undo:
            undo.callback(self._restore, dict(vars(self)))
            self.users_, self.user_features_ = grown(self.users_, pairs.users, self.user_features_, new_users)
            self.items_, self.item_features_ = grown(self.items_, pairs.items, self.item_features_, new_items)
            user_codes, item_codes = self.users_.encode(pairs.users), self.items_.encode(pairs.items)
            self.history_ = to_csr(
                np.concatenate([old.row, user_codes]),
                np.concatenate([old.col, item_codes]),
                np.concatenate([old.data, weights]),
                (len(self.users_), len(self.items_)),
            )
            rows = positive_rows(user_codes, item_codes, weights, context)
            if rows is not None:
                # Contexts of earlier rows are not kept: they come back as rows whose context is unknown.
                kept = old.data > 0
                unknown = EncodedFeatures.empty(int(kept.sum()), rows.features.fields)
                rows = ContextRows(
                    np.concatenate([old.row[kept].astype(np.int64), rows.users]),
                    np.concatenate([old.col[kept].astype(np.int64), rows.items]),
                    unknown.stack(rows.features),
                )
            self._learn(rows, warm=True)
            undo.pop_all()
        return self

    def _learn(self, context: ContextRows | None, warm: bool) -> None:
        if not np.isfinite(self.history_.data).all():
            raise InvalidInputError(
                "The weights of the rows of a pair add up to more than a single-precision number holds; expected "
                "smaller ones: scale `y`."
            )
        matrix = positives(self.history_)
        users_with_any = max(int(np.count_nonzero(np.diff(matrix.indptr))), 1)
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
        self.popularity_ = (counts / users_with_any).astype(np.float32)
        self._fit(TrainingData(matrix, self.user_features_, self.item_features_, context), warm)

    def predict(
        self,
        X: Any,
        *,
        user_features: Features = None,
        item_features: Features = None,
        interactions: Any = None,
    ) -> Floats:
        """Relevance of each row of `X`: higher is better, comparable within a user.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features_in_)
            As in `fit`. Unknown users and items are welcome.
        user_features : DataFrame or FeatureTable, default=None
            Features of users that were not known in `fit`, or newer ones of known users.
        item_features : DataFrame or FeatureTable, default=None
            Features of items that are not in the catalogue; those of the others stay as they are.
        interactions : DataFrame, default=None
            Interactions that happened after `fit`, as in `recommend`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
        """
        pairs, model, item_codes = self._read_predict(X, item_features)
        batch, rows = model._queries(pairs, user_features, interactions)
        model._warn_cold(batch, pairs.users)
        return model._score_pairs(batch, rows, item_codes)

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        user_features: Features = None,
        interactions: Any = None,
        context: Any = None,
        candidates: Any = None,
        exclude: Any = None,
        exclude_seen: bool = True,
        on_cold: OnCold = "features",
        working_memory: float | None = None,
    ) -> pd.DataFrame:
        """The k best items for each user.

        Parameters
        ----------
        users : array-like of shape (n_users,)
            Labels, known or new; answered in this order.
        k : int, default=10
            How many items; fewer come back where fewer are left.
        user_features : DataFrame or FeatureTable, default=None
            Features of new users, or newer ones of known users.
        interactions : DataFrame, default=None
            Interactions since `fit`: columns named as in `fit`, or else users in column 0, items in column 1. A column
            ``rating`` is read like `y`; without it every row is a positive.
        context : DataFrame of n_users rows or dict, default=None
            Context columns; a dict holds for every user. None: unknown.
        candidates, exclude : array-like of item ids, or DataFrame, default=None
            Items that alone may, or may not, be recommended: to everyone, or pair by pair, as in `interactions`.
        exclude_seen : bool, default=True
            Leave out what a user has interacted with, in `fit` or in `interactions`.
        on_cold : {"features", "popular", "raise"}, default="features"
            What answers users without interactions: the model from their features (and the popularity prior where there
            are none), always the prior, or, where nothing is known, a `ColdStartError`.
        working_memory : float, default=None
            MiB that scores may take at a time. None: scikit-learn's ``working_memory`` setting.

        Returns
        -------
        DataFrame
            Columns ``user_id`` and ``item_id``, whatever they are called in `X`, ``score``, ``rank`` (from 1) and
            ``path``, which says how the user was answered: "hot", "few-shot", "warm" or "cold".

        Raises
        ------
        InvalidInputError
            If an argument is not what is described here.
        ColdStartError
            If ``on_cold="raise"`` and nothing is known of a user.
        """
        check_is_fitted(self)
        k = read_k(k)
        if not isinstance(exclude_seen, (bool, np.bool_)):
            raise InvalidTypeError(f"`exclude_seen` is {exclude_seen!r}; expected True or False.")
        ids = as_ids(users, "users")
        batch, seen = self._batch(ids, user_features, interactions, context, on_cold)
        if on_cold == "features":
            self._warn_cold(batch, ids)
        allowed, candidate_pairs = allowed_items(candidates, self.items_, ids, self.id_names_)
        forbidden, excluded_pairs = excluded_items(exclude, self.items_, ids, self.id_names_)
        if forbidden is not None:
            allowed = ~forbidden if allowed is None else allowed & ~forbidden
        if excluded_pairs is not None:
            seen = excluded_pairs + pattern(seen) if exclude_seen else excluded_pairs
        score = self._scorer()

        def search(k: int) -> TopK:
            return top_k_chunks(
                lambda rows: score(batch.take(rows)),
                len(ids),
                len(self.items_),
                k,
                exclude=seen if exclude_seen or excluded_pairs is not None else None,
                allowed=allowed,
                candidates=candidate_pairs,
                working_memory=working_memory,
            )

        codes, scores, lengths = self._lists(search, k)
        valid = np.arange(codes.shape[1]) < lengths[:, None]
        rows = np.repeat(np.arange(len(ids)), lengths)
        return pd.DataFrame(
            {
                "user_id": ids.take(rows),
                "item_id": self.items_.decode(codes[valid]),
                "score": scores[valid],
                "rank": np.nonzero(valid)[1] + 1,
                "path": pd.Categorical.from_codes(batch.path[rows], categories=pd.Index(PATHS)),
            }
        )

    def similar_items(self, items: Any, k: int = 10) -> pd.DataFrame:
        """The k items most similar to each of `items`.

        Parameters
        ----------
        items : array-like of shape (n,)
            Items of the catalogue.
        k : int, default=10

        Returns
        -------
        DataFrame
            Columns ``item_id``, ``similar_item_id``, ``score`` (higher is more similar) and ``rank``.

        Raises
        ------
        InvalidInputError
            If an item is not in the catalogue.
        """
        check_is_fitted(self)
        k = read_k(k)
        ids = as_ids(items, "items")
        asked = self._known_items(ids)
        itself = to_csr(np.arange(len(ids)), asked, np.ones(len(ids), np.float32), (len(ids), len(self.items_)))
        codes, scores, lengths = top_k_chunks(
            lambda rows: self._similarity(asked[rows]), len(ids), len(self.items_), k, exclude=itself
        )
        valid = np.arange(codes.shape[1]) < lengths[:, None]
        return pd.DataFrame(
            {
                "item_id": ids.take(np.repeat(np.arange(len(ids)), lengths)),
                "similar_item_id": self.items_.decode(codes[valid]),
                "score": scores[valid],
                "rank": np.nonzero(valid)[1] + 1,
            }
        )

    def explain(
        self,
        X: Any,
        *,
        user_features: Features = None,
        item_features: Features = None,
        interactions: Any = None,
    ) -> pd.DataFrame:
        """Where each score comes from; the contributions of a row sum to its prediction.

        Parameters
        ----------
        X, user_features, item_features, interactions
            As in `predict`.

        Returns
        -------
        DataFrame
            Columns ``row`` (of `X`), ``user_id``, ``item_id``, ``source`` ("user", "item", "history" or "prior"),
            ``field``, ``weight`` (how much the model heeds the field) and ``contribution`` (its part of the score).
        """
        pairs, model, item_codes = self._read_predict(X, item_features)
        batch, rows = model._queries(pairs, user_features, interactions)
        frame = model._explain_all(batch, rows, item_codes)
        frame = frame.sort_values("row", kind="stable", ignore_index=True)
        at = frame["row"].to_numpy()
        frame.insert(1, "user_id", pairs.users.take(at))
        frame.insert(2, "item_id", pairs.items.take(at))
        return frame

    def score(self, X: Any, y: Any = None) -> float:
        """Mean NDCG@10 of what is recommended to the users of `X`, whose positives are the relevant items.

        What a user has seen in `fit` is not recommended, so the rows of `fit` themselves score 0: pass others. Users
        without positives in `X` are left out. To a model that uses context, a user in each context is one to be served.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        float
            From 0 to 1; 0 where no row is a positive.
        """
        hits, n_relevant = self._hits(X, y, 10)
        return float(ndcg(hits, n_relevant, 10).mean()) if len(n_relevant) else 0.0

    def _hits(self, X: Any, y: Any, k: int) -> tuple[Hits, Codes]:
        """Of each user of `X` with positives: which of the k best items are among them, and how many they are."""
        score, seen, truth = self._judged(X, y)
        lists = self._lists(lambda k: top_k_chunks(score, *seen.shape, k, exclude=seen), k)
        return hit_matrix(lists.columns, truth), np.diff(truth.indptr).astype(np.int64)

    def _judged(self, X: Any, y: Any) -> tuple[Callable[[slice], Floats], Csr, Csr]:
        """Of the users of `X` with positives: scores of the catalogue, what they have seen, and the positives.

        Items that the model does not know are relevant all the same: the positives have further columns for them.
        """
        check_is_fitted(self)
        pairs = self._read_pairs(X)
        wanted = np.flatnonzero(read_target(y, len(pairs), self.min_rating) > 0)
        if not len(wanted):
            nobody = empty_csr(0, len(self.items_))
            return lambda rows: nobody[rows].toarray(), nobody, nobody
        self._refuse_other_labels(pairs.items)
        users, context = pairs.users[wanted], pairs.context.iloc[wanted]
        first, query = self._distinct(users, context)
        batch, seen = self._batch(users[first], None, None, self._used_context(context.iloc[first]), "features")
        score = self._scorer()
        relevant = self.items_.extend(pairs.items[wanted])
        ones = np.ones(len(wanted), dtype=np.float32)
        truth = to_csr(query, relevant.encode(pairs.items[wanted]), ones, (len(first), len(relevant)))
        return lambda rows: score(batch.take(rows)), seen, truth

    def _scorer(self) -> Callable[[UserBatch], Floats]:
        """A function that scores the catalogue for a batch, whose cold users get the prior."""
        score = self._batch_scorer()

        def with_prior(batch: UserBatch) -> Floats:
            cold = batch.path == COLD
            if not cold.any():
                return score(batch)
            scores = np.empty((len(batch), len(self.items_)), dtype=np.float32)
            scores[cold] = self.popularity_
            if not cold.all():
                scores[~cold] = score(batch.take(np.flatnonzero(~cold)))
            return scores

        return with_prior

    def _score_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> Floats:
        """The score of pairs: row `rows[i]` of the batch with item `items[i]`."""
        score = self._scorer()
        scores = np.empty(len(rows), dtype=np.float32)
        order = np.argsort(rows, kind="stable")
        for queries in row_chunks(len(batch), len(self.items_)):
            bounds = np.searchsorted(rows[order], [queries.start, queries.stop])
            at = order[slice(*bounds)]
            scores[at] = score(batch.take(queries))[rows[at] - queries.start, items[at]]
        return scores

    def _explain_all(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """What `_explain_pairs` tells, and of cold users that they got the prior."""
        cold = batch.path[rows] == COLD
        told = np.flatnonzero(~cold)
        frame = pd.DataFrame(
            {
                "row": np.flatnonzero(cold),
                "source": "prior",
                "field": "popularity",
                "weight": np.float32(1),
                "contribution": self.popularity_[items[cold]],
            }
        )
        if len(told):
            explained = self._explain_pairs(batch, rows[told], items[told])
            explained = explained.assign(row=told[explained["row"].to_numpy()])
            frame = pd.concat([frame, explained], ignore_index=True) if len(frame) else explained
        return frame

    def _similarity(self, items: Codes) -> Floats:
        """How similar each item of the catalogue is: its score for one who has seen that item alone."""
        n = len(items)
        ones = np.ones(n, dtype=np.float32)
        history = to_csr(np.arange(n), items, ones, (n, len(self.items_)))
        features = EncodedFeatures.empty(n, self.user_features_.fields)
        context = read_context(None, n, self.context_encoder_)
        unknown = np.full(n, -1, dtype=np.int64)
        path = np.full(n, FEW_SHOT, dtype=np.int8)
        return self._batch_scorer()(UserBatch(unknown, np.zeros(n, dtype=bool), history, features, path, context))

    def _batch_scorer(self) -> Callable[[UserBatch], Floats]:
        return self._score_batch

    def _lists(self, search: Callable[[int], TopK], k: int) -> TopK:
        """Hook: the lists of k items, where `search(n)` finds the n highest scores of each user."""
        return search(k)

    @abstractmethod
    def _fit(self, data: TrainingData, warm: bool) -> None:
        """Hook: learn from `data`; `warm` means to go on from what was fitted before."""

    @abstractmethod
    def _score_batch(self, batch: UserBatch) -> Floats:
        """Hook: the score of every item of the catalogue for users who are not cold, (n_users, n_items)."""

    @abstractmethod
    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """Hook: columns row (position in `rows`), source, field, weight, contribution, summing to the scores."""
