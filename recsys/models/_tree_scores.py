"""Scores of boosted trees, by masks of their leaves: a few passes over arrays instead of a walk down each tree."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.topk import run_on_threads

__all__ = ["TreeScores"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Masks = npt.NDArray[np.unsignedinteger[Any]]

# What masks of so many leaves are.
WORDS: dict[int, np.dtype[np.unsignedinteger[Any]]] = {
    16: np.dtype(np.uint16),
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
}
# Where the exponent of a float begins, and the exponent of 1.
EXPONENT, EXPONENT_OF_1 = 23, 127
# It is quicker to compare with all of so few thresholds than to search among them.
FEW_THRESHOLDS = 64
# LightGBM takes what is no further from 0 than that for 0.
ZERO = np.float32(1e-35)
# Leaves that are looked up at a time: what belongs to them stays in the cache.
LEAVES_AT_A_TIME = 2**17
# In the type of a decision: the bit that sends NaN to the left, and from which bit on it says what NaN is.
DEFAULT_LEFT, MISSING_SHIFT = 2, 2
NAN_IS_ZERO, NAN_IS_MISSING = 0, 2
# All types of decisions about numbers.
KINDS = [0, 2, 4, 6, 8, 10]


class Step(NamedTuple):
    """What one feature says of the leaves.

    Attributes
    ----------
    thresholds : ndarray of shape (n_thresholds,), float32
        Of all splits on the feature, ascending; the last is infinite.
    masks : ndarray of shape (n_thresholds + 1, n_trees), unsigned
        The leaves that are left where the feature is at most so many thresholds; the first row is that of NaN.
    """

    thresholds: Floats
    masks: Masks


@dataclass(frozen=True, eq=False)
class TreeScores:
    """Trees that are ready to score: the idea of QuickScorer [1]_, with arrays in place of loops.

    The leaves of a tree are numbered from left to right. A split whose condition is false rules out the leaves on its
    left; of those that all false splits leave, the first is the one that the pair falls into. Which splits on a feature
    are false depends on how many thresholds lie below it, so each feature has a table of masks, and the masks of a pair
    are the intersection of one row a feature.

    Parameters
    ----------
    steps : dict of int to Step
        Of the features on which trees split.
    leaves : ndarray of shape (n_trees, width)
        The values of the leaves; `width` is one of those of masks.

    References
    ----------
    .. [1] C. Lucchese, F. M. Nardini, S. Orlando, R. Perego, N. Tonellotto, R. Venturini, "QuickScorer: A Fast
       Algorithm to Rank Documents with Additive Ensembles of Regression Trees", SIGIR 2015.

    Examples
    --------
    >>> import lightgbm
    >>> X, y = np.arange(100, dtype=np.float32)[:, None], np.arange(100) % 10
    >>> rows = lightgbm.Dataset(X, y, params={"verbosity": -1})
    >>> booster = lightgbm.train({"num_leaves": 4, "verbosity": -1}, rows, num_boost_round=3)
    >>> trees = TreeScores.from_text(booster.model_to_string())
    >>> bool(np.allclose(trees.of_pairs(X), booster.predict(X), rtol=1e-12))
    True
    """

    steps: dict[int, Step]
    leaves: Doubles

    @classmethod
    def from_text(cls, text: str) -> TreeScores | None:
        """Read what LightGBM wrote.

        Parameters
        ----------
        text : str
            What ``Booster.model_to_string`` wrote.

        Returns
        -------
        TreeScores or None
            None: trees that are not scored here, for they have more than 64 leaves or splits by categories, say.

        Raises
        ------
        KeyError, ValueError
            If a field is missing or holds what LightGBM never writes.
        """
        splits = _read(text)
        if splits is None:
            return None
        cleared, leaves = _leaves_on_the_left(splits)
        tree, split = np.nonzero(splits.feature >= 0)
        feature = splits.feature[tree, split]
        steps = {}
        for one in np.unique(feature):
            at = tree[feature == one], split[feature == one]
            steps[int(one)] = _step(splits.threshold[at], splits.nan_goes_left[at], at[0], cleared[at], len(leaves))
        return cls(steps, leaves)

    def masks(self, values: Floats, first: int = 0) -> Masks:
        """The leaves that some features leave.

        Parameters
        ----------
        values : ndarray of shape (n, n_features), float32
        first : int, default=0
            Which feature the first column is.

        Returns
        -------
        ndarray of shape (n, n_trees), unsigned
        """
        found = self._all_leaves(len(values))
        for rows in _slices(*found.shape):
            self._intersect(found[rows], values[rows].T, first)
        return found

    def of_pairs(self, values: Floats, n_jobs: int | None = None) -> Doubles:
        """Score pairs.

        Parameters
        ----------
        values : ndarray of shape (n, n_features), float32
        n_jobs : int, default=None
            Threads, as in scikit-learn; the result is the same bit for bit whatever their number.

        Returns
        -------
        ndarray of shape (n,)
        """
        every = self._all_leaves(1)
        of_columns = np.broadcast_to(every, (len(values), every.shape[1]))
        scores: Doubles = self.of_table(values.T[:, None], every, of_columns, n_jobs)[0]
        return scores

    def of_table(self, values: Floats, of_rows: Masks, of_columns: Masks, n_jobs: int | None = None) -> Doubles:
        """Score all pairs of rows and columns.

        Parameters
        ----------
        values : ndarray of shape (n_features, n_rows, n_columns), float32
            The features that depend on both, which are the first.
        of_rows, of_columns : ndarray of shape (n_rows, n_trees) and (n_columns, n_trees), unsigned
            The leaves that the features of rows, and those of columns, leave.
        n_jobs : int, default=None
            Threads, as in scikit-learn; the result is the same bit for bit whatever their number.

        Returns
        -------
        ndarray of shape (n_rows, n_columns)
        """
        n_features, n_rows, n_columns = values.shape
        n_trees = len(self.leaves)
        scores = np.empty((n_rows, n_columns))

        def work(task: tuple[slice, slice]) -> None:
            rows, columns = task
            left = (of_rows[rows, None] & of_columns[columns]).reshape(-1, n_trees)
            self._intersect(left, values[:, rows, columns].reshape(n_features, -1))
            scores[rows, columns] = self._sums(left).reshape(scores[rows, columns].shape)

        blocks = itertools.product(_slices(n_rows, n_columns * n_trees), _slices(n_columns, n_trees))
        run_on_threads(work, list(blocks), n_jobs)
        return scores

    def _all_leaves(self, n: int) -> Masks:
        n_trees, width = self.leaves.shape
        return np.invert(np.zeros((n, n_trees), WORDS[width]))

    def _intersect(self, left: Masks, columns: Floats, first: int = 0) -> None:
        """Rule out the leaves that features, (n_features, n), rule out; changes `left`, (n, n_trees)."""
        buffer = np.empty_like(left)
        for position, column in enumerate(columns, first):
            if position in self.steps:
                thresholds, masks = self.steps[position]
                # No code is out of bounds: clipping only spares a check.
                masks.take(_n_reached(thresholds, column), axis=0, out=buffer, mode="clip")
                np.bitwise_and(left, buffer, out=left)

    def _sums(self, left: Masks) -> Doubles:
        """The sums over the trees of the value of the first leaf that is left, (n,)."""
        n_trees, width = self.leaves.shape
        # The exponent of a power of two is the place of its bit.
        places = (left & -left).astype(np.float32).view(np.int32)
        np.right_shift(places, EXPONENT, out=places)
        np.add(places, np.arange(n_trees, dtype=np.int32) * width - EXPONENT_OF_1, out=places)
        sums: Doubles = self.leaves.ravel().take(places.astype(np.int64), mode="clip").sum(axis=1)
        return sums


def _slices(n: int, leaves: int) -> list[slice]:
    """Cut n rows of so many leaves into blocks of about the same size, none too large for the cache."""
    size = max(1, LEAVES_AT_A_TIME // max(leaves, 1))
    bounds = np.linspace(0, n, -(-n // size) + 1).astype(np.int64)
    return [slice(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)]


def _n_reached(thresholds: Floats, column: Floats) -> Codes:
    """How many of ascending thresholds each value is at most; NaN is at most none."""
    if len(thresholds) > FEW_THRESHOLDS:
        return len(thresholds) - np.searchsorted(thresholds, column).astype(np.int64)
    reached = np.less_equal(column, thresholds[:, None]).view(np.uint8)
    found: Codes = reached.sum(axis=0, dtype=np.uint8).astype(np.int64)
    return found


class _Splits(NamedTuple):
    """The splits of all trees: arrays of shape (n_trees, n_splits), and the values of their leaves.

    A child is a later split, or ``n_splits`` more than the number of a leaf; where a tree has fewer splits, `feature`
    is -1 and both children are the place after the last leaf.
    """

    feature: Codes
    threshold: Doubles
    nan_goes_left: npt.NDArray[np.bool_]
    left: Codes
    right: Codes
    leaf_value: Doubles


def _read(text: str) -> _Splits | None:
    """The splits that LightGBM wrote; None if they are not all of numbers, in trees that are added."""
    header, *written = text.split("\nTree=")
    trees = [dict(line.split("=", 1) for line in tree.split("\n\n")[0].splitlines()[1:]) for tree in written]
    lines = header.splitlines()
    if not trees or "num_tree_per_iteration=1" not in lines or "average_output" in lines:
        return None
    if any(tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0" for tree in trees):
        return None
    leaf_value = _padded(trees, "leaf_value", 0, 0, np.float64)
    n_splits = leaf_value.shape[1] - 1
    kind = _padded(trees, "decision_type", 1, 0, np.int64)
    threshold = _padded(trees, "threshold", 1, 0, np.float64)
    feature = _padded(trees, "split_feature", 1, -1, np.int64)
    children = [_padded(trees, f"{side}_child", 1, -n_splits - 2, np.int64) for side in ("left", "right")]
    left, right = (np.where(side < 0, n_splits + ~side, side) for side in children)
    _check_tree([int(tree["num_leaves"]) - 1 for tree in trees], feature, left, right)
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if feature.max(initial=-1) > int(fields["max_feature_idx"]):
        raise ValueError(f"a tree splits on feature {feature.max()}, above max_feature_idx")
    # The first bit is that of a split by categories, of which there are none.
    if not np.isin(kind, KINDS).all():
        raise ValueError(f"a decision_type is none of {KINDS}")
    missing = kind >> MISSING_SHIFT
    if n_splits >= max(WORDS) or not np.isin(missing, [NAN_IS_ZERO, NAN_IS_MISSING]).all():
        return None
    nan_goes_left = np.where(missing == NAN_IS_MISSING, kind & DEFAULT_LEFT > 0, threshold >= 0)
    return _Splits(feature, threshold, nan_goes_left, left, right, leaf_value)


def _padded(trees: list[dict[str, str]], name: str, fewer: int, fill: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A field of all trees, (n_trees, width), of which each has so many fewer values than leaves."""
    written = [tree[name].split() for tree in trees]
    for tree, found in zip(trees, written, strict=True):
        if len(found) != int(tree["num_leaves"]) - fewer:
            raise ValueError(f"a tree of {tree['num_leaves']} leaves has {len(found)} values of {name}")
    values = np.full((len(trees), max(map(len, written))), fill, dtype)
    for row, found in zip(values, written, strict=True):
        row[: len(found)] = found
    return values


def _check_tree(sizes: list[int], feature: Codes, left: Codes, right: Codes) -> None:
    """Refuse splits that make no tree: each leaf, and each split but the first, is the child of one earlier split."""
    own, n_splits = np.array(sizes)[:, None], feature.shape[1]
    place = np.arange(1, 2 * n_splits + 1)
    is_child = np.where(place < n_splits, place < own, (place - n_splits <= own) & (own > 0))
    expected = np.sort(np.where(is_child, place, 2 * n_splits + 1), axis=1)
    known = np.array_equal(np.sort(np.hstack([left, right]), axis=1), expected)
    later = (np.minimum(left, right) > np.arange(n_splits)).all()
    if not known or not later or np.count_nonzero(feature >= 0) != own.sum():
        raise ValueError("the splits of a tree make no tree")


def _leaves_on_the_left(splits: _Splits) -> tuple[Masks, Doubles]:
    """Number the leaves of each tree from left to right.

    Returns
    -------
    cleared : ndarray of shape (n_trees, n_splits), unsigned
        The leaves that remain where a split is false.
    leaves : ndarray of shape (n_trees, width)
        The values of the leaves in their new order.
    """
    n_trees, n_splits = splits.feature.shape
    n_leaves = n_splits + 1
    tree = np.arange(n_trees)
    # Of splits, of leaves, and of the place after the last leaf.
    counts = np.ones((n_trees, n_splits + n_leaves + 1), dtype=np.int64)
    starts = np.zeros_like(counts)
    for split in reversed(range(n_splits)):
        counts[:, split] = counts[tree, splits.left[:, split]] + counts[tree, splits.right[:, split]]
    for split in range(n_splits):
        left, right = splits.left[:, split], splits.right[:, split]
        starts[tree, left] = starts[:, split]
        starts[tree, right] = starts[:, split] + counts[tree, left]
    width = min(word for word in WORDS if word >= n_leaves)
    leaves = np.zeros((n_trees, width))
    # Leaves that a tree does not have add 0 to its first.
    np.add.at(leaves, (tree[:, None], starts[:, n_splits:-1]), splits.leaf_value)
    sizes = counts[tree[:, None], splits.left].astype(np.uint64)
    ruled_out = ((np.uint64(1) << sizes) - np.uint64(1)) << starts[:, :n_splits].astype(np.uint64)
    return (~ruled_out).astype(WORDS[width]), leaves


def _step(threshold: Doubles, nan_goes_left: npt.NDArray[np.bool_], tree: Codes, cleared: Masks, n_trees: int) -> Step:
    """The table of one feature, of all its splits."""
    exact = _as_floats(threshold)
    thresholds = np.union1d(exact, np.float32(np.inf))
    masks = np.full((len(thresholds) + 1, n_trees), np.iinfo(cleared.dtype).max, cleared.dtype)
    # A split is false where the value is at most the thresholds after its own; NaN alone is above an infinite one.
    after = len(thresholds) - 1 - np.searchsorted(thresholds, exact)
    np.bitwise_and.at(masks, (after, tree), cleared)
    masks[1:] = np.bitwise_and.accumulate(masks[:0:-1], axis=0)[::-1]
    masks[0] = np.iinfo(cleared.dtype).max
    right = ~nan_goes_left
    np.bitwise_and.at(masks, (np.zeros(right.sum(), np.int64), tree[right]), cleared[right])
    return Step(thresholds, masks)


def _as_floats(threshold: Doubles) -> Floats:
    """Thresholds that single floats exceed where, to LightGBM, they exceed the doubles."""
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
    down = np.float32(-np.inf)
    rounded = np.where(rounded > threshold, np.nextafter(rounded, down), rounded)
    # All that LightGBM takes for 0 is on one side.
    rounded[(threshold >= 0) & (rounded < ZERO)] = ZERO
    rounded[(threshold < 0) & (rounded >= -ZERO)] = np.nextafter(-ZERO, down)
    return rounded
