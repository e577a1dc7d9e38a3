"""What an estimator knows, parameters and fitted state: how it is checked, grows, is saved, and is asked."""

from __future__ import annotations

import copy
import warnings
from abc import ABC
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from recsys._requests import read_context, read_request_history
from recsys._sparse import Csr, distinct_rows, pattern, positives, take_rows
from recsys.exceptions import (
    ColdStartError,
    ColdStartWarning,
    DataWarning,
    InvalidInputError,
    InvalidTypeError,
    PersistenceError,
    did_you_mean,
    examples,
)
from recsys.features import EncodedFeatures, FeatureEncoder, FeatureTable, encode_features
from recsys.interactions import PATHS, ContextRows, Pairs, UserBatch, as_frame, read_pairs
from recsys.persistence import NO_MODELS, persistent, refuse_other_kind, write_directory
from recsys.topk import single_threaded_blas
from recsys.vocabulary import Vocabulary, as_ids

__all__ = [
    "COLD",
    "EstimatorState",
    "FEW_SHOT",
    "HOT",
    "WARM",
    "fit_context",
    "grown",
    "positive_rows",
    "refuse_without_positives",
]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Features: TypeAlias = "FeatureTable | pd.DataFrame | None"
OnCold = Literal["features", "popular", "raise"]

Self = TypeVar("Self", bound="EstimatorState")

HOT, FEW_SHOT, WARM, COLD = range(len(PATHS))
ON_COLD = ("features", "popular", "raise")


class EstimatorState(BaseEstimator, ABC):
    """The half of `BaseRecommender` that its public methods stand on; the attributes are described there."""

    min_rating: float | None

    id_names_: tuple[str, str]
    users_: Vocabulary
    items_: Vocabulary
    user_encoder_: FeatureEncoder | None
    item_encoder_: FeatureEncoder | None
    context_encoder_: FeatureEncoder | None
    user_features_: EncodedFeatures
    item_features_: EncodedFeatures
    history_: Csr
    popularity_: Floats

    # What a model can use: a user of whom only unusable things are known is cold to it.
    _uses_user_features = False
    _uses_context = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Let an estimator be part of a saved one."""
        super().__init_subclass__(**options)
        persistent(cls)

    def __new__(cls, *args: Any, **params: Any) -> EstimatorState:
        """Refuse an unknown parameter with the name of the nearest one."""
        known = cls._get_param_names()
        for name in params:
            if name not in known:
                raise InvalidTypeError(f"{cls.__name__} has no parameter {name!r}. {did_you_mean(name, known)}")
        made: EstimatorState = super().__new__(cls)
        return made

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name.

        Parameters
        ----------
        **params
            Constructor arguments.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            If a name is unknown; the nearest known one is suggested.
        """
        known = self.get_params(deep=False)
        for name in params:
            # What follows two underscores is a parameter of that parameter, which checks it.
            if name.partition("__")[0] not in known:
                raise InvalidInputError(f"{type(self).__name__} has no parameter {name!r}. {did_you_mean(name, known)}")
        super().set_params(**params)
        return self

    def add_items(self: Self, items: Any) -> Self:
        """Let new items join the catalogue, at its end, without training.

        Parameters
        ----------
        items : DataFrame or FeatureTable, or array-like of item ids
            Their features, or their ids alone where nothing more is known.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            If an item is in the catalogue already.

        Warns
        -----
        DataWarning
            If all ids are of another type than those there: text, say, where these are numbers.
        """
        check_is_fitted(self)
        if isinstance(items, (pd.DataFrame, FeatureTable)):
            ids, encoded = encode_features(items, "items", self.id_names_[1], self.item_encoder_)
        else:
            ids = as_ids(items, "items")
            encoded = EncodedFeatures.empty(len(ids), self.item_features_.fields)
        if not ids.is_unique:
            twice = ids[ids.duplicated()].unique()
            raise InvalidInputError(
                f"`items` holds {len(twice)} ids more than once: {examples(twice)}; expected each once: drop the rest."
            )
        known = ids[self.items_.encode(ids) >= 0]
        if len(known):
            raise InvalidInputError(
                f"`items` holds {len(known)} ids that are in the catalogue already: {examples(known)}; expected new "
                f"ones: drop these."
            )
        self._warn_of_other_labels(ids, "items", self.items_)
        self._append_items(ids, encoded)
        return self

    def save(self, path: Any) -> None:
        """Save the fitted model into a directory, atomically; `recsys.load` reads it.

        Parameters
        ----------
        path : path-like
            A directory that is new, empty, or holds a saved model, which is replaced.

        Raises
        ------
        PersistenceError
            If something cannot be stored; nothing is written then.
        """
        check_is_fitted(self)
        from recsys import __version__

        refuse_other_kind(path, lambda held: held not in list(NO_MODELS))
        saved = self.to_state()
        header = {"class": type(self).__name__, "recsys_version": __version__, "parameters": saved["parameters"]}
        write_directory(path, saved["state"], header)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores: parameters and fitted attributes."""
        parameters = {name: _storable(name, value) for name, value in self.get_params(deep=False).items()}
        return {"parameters": parameters, "state": self._fitted_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EstimatorState:
        """The inverse of `to_state`."""
        return cls._from_saved(state["parameters"], state["state"])

    def _fitted_state(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name.endswith("_") and name[0] != "_"}
        if "feature_names_in_" in state:
            state["feature_names_in_"] = [str(name) for name in state["feature_names_in_"]]
        return state

    @classmethod
    def _from_saved(cls, parameters: dict[str, Any], state: dict[str, Any]) -> EstimatorState:
        model = cls(**parameters)
        model.__dict__.update(state)
        if "feature_names_in_" in state:
            model.feature_names_in_ = np.array(state["feature_names_in_"], dtype=object)
        return model

    def _restore(self, before: dict[str, Any]) -> None:
        self.__dict__.clear()
        self.__dict__.update(before)

    def _known_items(self, items: Any) -> Codes:
        ids = as_ids(items, "items")
        codes = self.items_.encode(ids)
        if (codes < 0).any():
            unknown = ids[codes < 0]
            raise InvalidInputError(
                f"`items` holds {len(unknown)} ids that are not in the catalogue: {examples(unknown)}; expected items "
                f"of the catalogue: add them with `add_items` first.{self.items_.mismatch(unknown)}"
            )
        return codes

    def _read_pairs(self, X: Any) -> Pairs:
        """Read an `X` that comes after `fit`: its columns are those of then."""
        frame = as_frame(X)
        # A target among the columns is the better explanation of one column too many.
        pairs = read_pairs(frame) if frame.shape[1] > 2 else None
        try:
            validate_data(self, X if frame is X else frame.to_numpy(), skip_check_array=True, reset=False)
        except ValueError as error:
            names = getattr(self, "feature_names_in_", None)
            columns = f"{self.n_features_in_} columns" if names is None else ", ".join(map(repr, names))
            raise InvalidInputError(
                f"`X` does not have the columns of fit. {str(error).rstrip()}\nExpected users, items and context as in "
                f"fit, in that order: {columns}; add, drop or reorder yours."
            ) from error
        return read_pairs(frame) if pairs is None else pairs

    def _refuse_other_labels(self, items: pd.Index) -> None:
        """Refuse ids of another type than the catalogue's: they are a slip, and would all be new items."""
        if (self.items_.encode(items) < 0).all() and (hint := self.items_.mismatch(items)):
            raise InvalidInputError(
                f"`X` names no item of the catalogue, but {examples(items)}; expected its items.{hint}"
            )

    def _warn_of_other_labels(
        self, ids: pd.Index, argument: str, known: Vocabulary, also: pd.Index | None = None
    ) -> None:
        """Warn where ids are of another type than those known and are not among `also`: they may be a slip."""
        new = (known.encode(ids) < 0).all() and (also is None or not ids.isin(also).any())
        if new and (hint := known.mismatch(ids)):
            warnings.warn(
                f"`{argument}` names none that is known, but {examples(ids)}: all join as new.{hint}",
                DataWarning,
                stacklevel=3,
            )

    def _read_predict(self: Self, X: Any, item_features: Features) -> tuple[Pairs, Self, Codes]:
        """Rows, their item codes, and a model whose catalogue has all their items."""
        check_is_fitted(self)
        pairs = self._read_pairs(X)
        codes = self.items_.encode(pairs.items)
        encoded = self._encode(item_features, "item_features")
        if encoded is not None and not encoded[0].isin(pairs.items).any():
            raise InvalidInputError(
                f"`item_features` has no row for any item of `X` (its ids: {examples(encoded[0])}; those of `X`: "
                f"{examples(pairs.items)}); expected features of these items: pass none, or theirs."
                f"{Vocabulary(pairs.items.unique()).mismatch(encoded[0])}"
            )
        if (codes >= 0).all():
            return pairs, self, codes
        if encoded is None:
            self._refuse_other_labels(pairs.items)
        unknown = pairs.items[codes < 0].unique()
        fresh = EncodedFeatures.empty(len(unknown), self.item_features_.fields)
        if encoded is not None:
            fresh = encoded[1].take(encoded[0].get_indexer(unknown))
        model = copy.copy(self)
        model._append_items(unknown, fresh)
        return pairs, model, model.items_.encode(pairs.items)

    def _append_items(self, ids: pd.Index, encoded: EncodedFeatures) -> None:
        self.items_ = self.items_.extend(ids)
        self.item_features_ = self.item_features_.stack(encoded)
        history, n_items = self.history_, len(self.items_)
        self.history_ = Csr((history.data, history.indices, history.indptr), (history.shape[0], n_items))
        self.popularity_ = np.append(self.popularity_, np.zeros(len(ids), dtype=np.float32))
        # Whatever the number of threads, the same bits.
        with single_threaded_blas():
            self._items_appended()

    def _items_appended(self) -> None:
        """Hook: the catalogue has grown; what the model keeps an item is not yet as long.

        The model may be a shallow copy: replace arrays, do not write into them.
        """

    def _encode(self, features: Features, argument: str) -> tuple[pd.Index, EncodedFeatures] | None:
        if features is None:
            return None
        of_items = argument == "item_features"
        encoder = self.item_encoder_ if of_items else self.user_encoder_
        return encode_features(features, argument, self.id_names_[of_items], encoder)

    def _queries(self, pairs: Pairs, user_features: Features, interactions: Any) -> tuple[UserBatch, Codes]:
        """The distinct queries of these rows, and which one each row asks."""
        first, rows = self._distinct(pairs.users, pairs.context)
        context = self._used_context(pairs.context.iloc[first])
        return self._batch(pairs.users[first], user_features, interactions, context, "features")[0], rows

    def _distinct(self, users: pd.Index, context: pd.DataFrame) -> tuple[Codes, Codes]:
        """Where each user, or each user in a context that counts, comes first, and which of them each row is."""
        codes = Vocabulary.from_values(users)[1]
        used = self._used_context(context)
        encoded = None if used is None or self.context_encoder_ is None else self.context_encoder_.transform(used, "X")
        return distinct_rows(codes, None if encoded is None else encoded.matrix)

    def _used_context(self, context: pd.DataFrame) -> pd.DataFrame | None:
        return context if self._uses_context and self.context_encoder_ is not None else None

    def _batch(
        self, ids: pd.Index, user_features: Features, interactions: Any, context: Any, on_cold: OnCold
    ) -> tuple[UserBatch, Csr]:
        """Gather what is known of `ids`, and what they have seen (CSR in which every stored entry counts)."""
        _check_on_cold(on_cold)
        codes = self.users_.encode(ids)
        seen = take_rows(self.history_, codes)
        features = self._features_of(ids, codes, user_features)
        history = positives(seen)
        hot = np.diff(history.indptr) > 0
        trained = hot
        if interactions is not None:
            fresh = read_request_history(interactions, ids, self.items_, self.id_names_, self.min_rating)
            taken = positives(fresh)
            history = history + taken
            trained = hot & (np.diff(taken.indptr) == 0)
            seen = pattern(seen) + pattern(fresh)
        path = np.where(hot, HOT, np.where(np.diff(history.indptr) > 0, FEW_SHOT, COLD)).astype(np.int8)
        if on_cold != "popular" and self._uses_user_features:
            path[(path == COLD) & features.present.any(axis=1)] = WARM
        if on_cold == "raise" and (path == COLD).any():
            unknown = ids[path == COLD]
            raise ColdStartError(
                f"Nothing that {type(self).__name__} can use is known of {len(unknown)} of `users`: "
                f"{examples(unknown)}; pass {self._what_helps()}, or "
                f'on_cold="popular".{self.users_.mismatch(unknown)}'
            )
        encoded_context = read_context(context, len(ids), self.context_encoder_)
        return UserBatch(codes, trained, history, features, path, encoded_context), seen

    def _as_in_fit(self, batch: UserBatch) -> npt.NDArray[np.bool_]:
        """Users for whom history and features are those of `fit`: what was fitted for them holds."""
        same = batch.trained.copy()
        known = np.flatnonzero(same)
        changed = abs(batch.features.matrix[known] - self.user_features_.matrix[batch.codes[known]])
        same[known] = np.asarray(changed.sum(axis=1)).ravel() == 0
        return same

    def _features_of(self, ids: pd.Index, codes: Codes, user_features: Features) -> EncodedFeatures:
        """Features of users: those given now, or else those of `fit`."""
        features = self.user_features_.take(codes)
        table = self._encode(user_features, "user_features")
        if table is None:
            return features
        rows = table[0].get_indexer(ids)
        if len(ids) and (rows < 0).all():
            raise InvalidInputError(
                f"`user_features` has no row of any user asked for (its ids: {examples(table[0])}; asked: "
                f"{examples(ids)}); expected features of these users.{Vocabulary(ids.unique()).mismatch(table[0])}"
            )
        return features.stack(table[1]).take(np.where(rows >= 0, len(ids) + rows, np.arange(len(ids))))

    def _what_helps(self) -> str:
        return "`user_features` or `interactions`" if self._uses_user_features else "`interactions`"

    def _warn_cold(self, batch: UserBatch, ids: pd.Index) -> None:
        n_cold = int((batch.path == COLD).sum())
        if n_cold:
            hint = self.users_.mismatch(ids) if (batch.codes < 0).all() else ""
            warnings.warn(
                f"Nothing that {type(self).__name__} can use is known of {n_cold} of {len(batch)} users: they were "
                f"answered with the most popular items. Pass {self._what_helps()}, or "
                f'on_cold="popular" to agree.{hint}',
                ColdStartWarning,
                stacklevel=3,
            )


def fit_context(pairs: Pairs) -> tuple[FeatureEncoder | None, EncodedFeatures | None]:
    """Learn the context columns and encode them, row by row; None where there are none."""
    if not pairs.context.shape[1]:
        return None, None
    table = FeatureTable(pairs.context)
    encoder = FeatureEncoder.fit(table.frame, table.kinds, table.sep)
    return encoder, encoder.transform(table.frame, "X")


def positive_rows(users: Codes, items: Codes, weights: Floats, context: EncodedFeatures | None) -> ContextRows | None:
    """The positives one by one with their contexts; None where `X` has no context columns."""
    if context is None:
        return None
    kept = np.flatnonzero(weights > 0)
    return ContextRows(users[kept], items[kept], context.take(kept))


def grown(
    vocabulary: Vocabulary, ids: pd.Index, features: EncodedFeatures, new: tuple[pd.Index, EncodedFeatures] | None
) -> tuple[Vocabulary, EncodedFeatures]:
    """A vocabulary that knows `ids` as well, and its features, in which `new` ones replace the old."""
    longer = vocabulary.extend(ids)
    if new is not None:
        longer = longer.extend(new[0])
    rows = np.where(np.arange(len(longer)) < len(vocabulary), np.arange(len(longer)), -1)
    if new is None:
        return longer, features.take(rows)
    rows[longer.encode(new[0])] = len(features) + np.arange(len(new[0]))
    return longer, features.stack(new[1]).take(rows)


def refuse_without_positives(weights: Floats, min_rating: float | None) -> None:
    """Raise where no row is a positive: there is nothing to learn from."""
    if not (weights > 0).any():
        bar = "above 0" if min_rating is None else f"above 0 and not below `min_rating` ({min_rating})"
        raise InvalidInputError(
            f"`y` makes none of the {len(weights)} rows of `X` a positive; expected values {bar} in some rows: "
            f"leave `y` out where every row is a positive."
        )


def _check_on_cold(on_cold: Any) -> None:
    if not isinstance(on_cold, str) or on_cold not in ON_COLD:
        hint = f" {did_you_mean(on_cold, ON_COLD)}" if isinstance(on_cold, str) else ""
        raise InvalidInputError(f'`on_cold` is {on_cold!r}; expected "features", "popular" or "raise".{hint}')


def _storable(name: str, value: Any) -> Any:
    """A parameter as JSON holds it."""
    # A generator has no lasting form; what it has drawn is in the fitted state.
    if isinstance(value, (np.random.RandomState, np.random.Generator)):
        return None
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # A parameter is a template: what it was fitted to elsewhere does not count.
    if isinstance(value, EstimatorState):
        return clone(value)
    if isinstance(value, (list, tuple)):
        parts = [_storable(name, part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    raise PersistenceError(
        f"Parameter `{name}` is of type {type(value).__name__}, which cannot be stored; expected numbers, strings, "
        f"None, or lists or tuples of these. Nothing was written."
    )
