r"""Content to vectors: kernel ridge regression whose kernel is a mixture of fields and of products of fields.

With :math:`K_f` the inner products of items in field f, the kernel is

.. math:: K = \sum_f w_f K_f + \sum_{f \le g} w_{fg} K_f K_g,

where a product stands for both at once: a comedy of the nineties, not a comedy or the nineties. Numbers are the less
alike the more knots lie between them, exponentially: next to each other they say nearly the same. The weights are
chosen by how well held-out items are ranked, fold after fold, which needs one factorisation a candidate: leaving a fold
out of a ridge regression is exact in closed form. Items have weights: what few have taken says little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from recsys._sparse import Csr, distinct_rows
from recsys.features import EncodedFeatures
from recsys.persistence import persistent

__all__ = [
    "KernelRidge",
    "Mixture",
    "choose_mixture",
    "field_rows",
    "held_out_predictions",
    "kernel_terms",
    "root_of_knots",
]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Weights that a product of fields may have, factors that a field's own weight and the noise may change by, and rounds.
PRODUCT_WEIGHTS, FACTORS, ROUNDS = (0.0, 0.3, 1.0), (0.3, 3.0), 2
# Every field counts, and every product a little where all can be tried: none must first be found.
START_PRODUCT, START_NOISE = 0.1, 10.0
# At the most so many mixtures are tried.
MAX_TRIALS = 40
# What a step must gain: less is chance.
LEAST_GAIN = 5e-3
# Added to the diagonal, relative to its mean, so that rounding leaves a kernel positive definite.
JITTER = 1e-6
# Numbers that are this share of all knots apart are alike by 1 / e.
KNOTS_ALIKE = 0.2
# The same for the normal equations of landmarks, in double precision.
RELATIVE = 1e-9


@dataclass(frozen=True)
class Mixture:
    """A kernel between items.

    Attributes
    ----------
    weights : ndarray of shape (n_terms,), float64
        In the order of `kernel_terms`.
    noise : float
        What the ridge regression adds to the diagonal, for an item of weight 1.
    """

    weights: npt.NDArray[np.float64]
    noise: float

    def kernel(
        self, rows: EncodedFeatures, columns: EncodedFeatures, dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """The kernel between n and m items.

        Parameters
        ----------
        rows, columns : EncodedFeatures of n and of m items
        dtype : dtype, default=float32
            In which it is computed.

        Returns
        -------
        ndarray of shape (n, m), `dtype`
        """
        return _mix(_field_kernels(rows, columns, dtype), self.weights)


def kernel_terms(n_fields: int) -> list[tuple[int, ...]]:
    """The terms of a mixture, as the fields that they multiply.

    Parameters
    ----------
    n_fields : int

    Returns
    -------
    list of tuple of int

    Examples
    --------
    >>> kernel_terms(2)
    [(0,), (1,), (0, 0), (0, 1), (1, 1)]
    """
    return [*((field,) for field in range(n_fields)), *combinations_with_replacement(range(n_fields), 2)]


def field_rows(features: EncodedFeatures) -> list[Csr]:
    """The rows of each field. Members of sets and words count 1 each: how many there are tells something too.

    Numbers lie between knots, of which near ones are alike.
    """
    found = []
    for field in features.fields:
        block = features.block(field)
        if field.kind in ("multi_hot", "text"):
            block = Csr((np.ones_like(block.data), block.indices, block.indptr), shape=block.shape)
        elif field.kind == "numeric":
            block = Csr(block @ Csr(root_of_knots(block.shape[1])))
        elif field.kind == "vector":
            lengths = np.sqrt(np.asarray(block.multiply(block).sum(axis=1))).ravel()
            block = Csr(sparse.diags_array(1 / np.maximum(lengths, 1e-12)) @ block)
        found.append(block)
    return found


def root_of_knots(n: int) -> Floats:
    """R, lower triangular, such that RR' says how alike the knots of a number are."""
    places = np.arange(n)
    alike = np.exp(-np.abs(places[:, None] - places) / (KNOTS_ALIKE * max(n, 1)))
    return np.linalg.cholesky(alike).astype(np.float32)


def _field_kernels(
    rows: EncodedFeatures, columns: EncodedFeatures, dtype: npt.DTypeLike = np.float32
) -> list[npt.NDArray[Any]]:
    pairs = zip(field_rows(rows), field_rows(columns), strict=True)
    return [Csr(a.astype(dtype) @ b.T.astype(dtype)).toarray() for a, b in pairs]


def _mix(kernels: Sequence[Floats], weights: npt.NDArray[np.float64]) -> Floats:
    total = np.zeros_like(kernels[0])
    for weight, term in zip(weights, kernel_terms(len(kernels)), strict=True):
        if weight:
            total += _product(kernels, term, weight)
    return total


def _product(kernels: Sequence[Floats], term: tuple[int, ...], weight: float) -> Floats:
    product = np.float32(weight) * kernels[term[0]]
    for field in term[1:]:
        product *= kernels[field]
    return product


def held_out_predictions(
    kernel: Floats, noise: float, targets: Floats, weights: Floats, folds: Sequence[Codes]
) -> list[Floats]:
    r"""What a ridge regression predicts of each fold when it has not seen that fold.

    With :math:`C = K + \sigma^2 W^{-1}` and F a fold, the error there is :math:`(C^{-1}_{FF})^{-1} (C^{-1} Y)_F`.

    Parameters
    ----------
    kernel : ndarray of shape (n, n), float32
    noise : float
    targets : ndarray of shape (n, d), float32
    weights : ndarray of shape (n,), float32
        W: how far each target is to be trusted, above 0.
    folds : sequence of ndarray of int64
        Each ascending.

    Returns
    -------
    list of ndarray, each of shape (size of the fold, d), float32

    Raises
    ------
    numpy.linalg.LinAlgError
        If the kernel is not positive definite in single precision.

    References
    ----------
    C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006, section 5.4.2.

    Examples
    --------
    >>> kernel, targets = np.ones((3, 3), dtype=np.float32), np.array([[1.0], [2.0], [6.0]], dtype=np.float32)
    >>> held_out_predictions(kernel, 0.001, targets, np.ones(3, np.float32), [np.array([2])])[0].round(2)
    array([[1.5]], dtype=float32)
    """
    system = np.array(kernel, order="F")
    system[np.diag_indices_from(system)] += noise / weights + np.float32(JITTER * float(np.trace(kernel)) / len(kernel))
    factor, failed = linalg.lapack.spotrf(system, lower=True, overwrite_a=True)
    if failed:
        raise np.linalg.LinAlgError("the kernel is not positive definite")
    lower, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    solved = linalg.blas.ssymm(1.0, lower, targets, lower=1)
    found = []
    for fold in folds:
        # An ascending fold's own block is lower, too.
        own = lower[np.ix_(fold, fold)]
        own = np.tril(own) + np.tril(own, -1).T
        found.append(targets[fold] - linalg.solve(own, solved[fold], assume_a="pos"))
    return found


def choose_mixture(
    features: EncodedFeatures,
    targets: Floats,
    weights: Floats,
    folds: Sequence[Codes],
    judge: Callable[[list[Floats]], float],
) -> tuple[Mixture, float, list[Floats]]:
    """Choose the weights of a mixture and the noise: one after the other, as long as held-out items are served better.

    Parameters
    ----------
    features : EncodedFeatures of n items
        With one field at least.
    targets : ndarray of shape (n, d), float32
    weights : ndarray of shape (n,), float32
        How far each target is to be trusted, above 0.
    folds : sequence of ndarray of int64
        Ascending; they may overlap.
    judge : callable
        Says of the predictions of each fold how good they are; higher is better.

    Returns
    -------
    mixture : Mixture
    value : float
        What the judge said of it.
    predictions : list of ndarray of shape (n_items, d), float32
        Of each fold by the others, with this mixture.

    Examples
    --------
    >>> from recsys.features import FeatureEncoder
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"told": list("aabb") * 8, "chance": (list("abcde") * 7)[:32]})
    >>> features = FeatureEncoder.fit(frame, dict.fromkeys(frame, "categorical"), "|").transform(frame, "frame")
    >>> targets = features.block(features.fields[0]).toarray()
    >>> folds = [np.arange(0, 32, 3), np.arange(1, 32, 3)]
    >>> def judge(found):
    ...     return -sum(float(np.abs(part - targets[fold]).sum()) for part, fold in zip(found, folds))
    >>> mixture, *_ = choose_mixture(features, targets, np.ones(32, np.float32), folds, judge)
    >>> bool(mixture.weights[0] > mixture.weights[1])
    True
    """
    kernels = _field_kernels(features, features)
    n_fields = len(kernels)
    terms = kernel_terms(n_fields)

    def value_of(kernel: Floats, noise: float) -> tuple[float, list[Floats]]:
        try:
            found = held_out_predictions(kernel, noise, targets, weights, folds)
        except np.linalg.LinAlgError:
            return -np.inf, []
        return judge(found), found

    start_product = START_PRODUCT if len(terms) <= MAX_TRIALS else 0.0
    mixture = np.array([1.0] * n_fields + [start_product] * (len(terms) - n_fields))
    kernel, noise, trials = _mix(kernels, mixture), START_NOISE, 1
    best, predictions = value_of(kernel, noise)
    for _ in range(ROUNDS):
        before = best
        for place in range(len(terms) + 1):
            for mixture_tried, noise_tried in _neighbours(mixture, noise, place, n_fields):
                if trials >= MAX_TRIALS:
                    return Mixture(mixture, noise), best, predictions
                trials += 1
                tried = kernel
                if place < len(terms):
                    tried = kernel + _product(kernels, terms[place], mixture_tried[place] - mixture[place])
                value, found = value_of(tried, noise_tried)
                if value > best + LEAST_GAIN * abs(best):
                    best, kernel, mixture, noise, predictions = value, tried, mixture_tried, noise_tried, found
        if best == before:
            break
    return Mixture(mixture, noise), best, predictions


def _neighbours(
    weights: npt.NDArray[np.float64], noise: float, place: int, n_fields: int
) -> list[tuple[npt.NDArray[np.float64], float]]:
    """What to try instead at one place: another noise, another weight of a field, another weight of a product."""
    if place == len(weights):
        return [(weights, noise * factor) for factor in FACTORS]
    others = [weights[place] * factor for factor in FACTORS] if place < n_fields else PRODUCT_WEIGHTS
    found = []
    for other in others:
        changed = weights.copy()
        changed[place] = other
        found.append((changed, noise))
    return found


@persistent
class KernelRidge:
    """The regression itself: from items whose vectors are known to any item.

    Where all known items are landmarks this is kernel ridge regression; else the subset of regressors [1]_.

    Parameters
    ----------
    mixture : Mixture
    landmarks : EncodedFeatures of m items
    dual : ndarray of shape (m, d), float32
        The vector of an item is its kernel with the landmarks times these.

    References
    ----------
    .. [1] C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006, section 8.3.1.
    """

    def __init__(self, mixture: Mixture, landmarks: EncodedFeatures, dual: Floats) -> None:
        self.mixture = mixture
        self.landmarks = landmarks
        self.dual = dual

    @classmethod
    def fit(
        cls,
        mixture: Mixture,
        features: EncodedFeatures,
        targets: Floats,
        weights: Floats,
        landmarks: Codes,
        chunk: int = 2048,
    ) -> KernelRidge:
        """Solve the regression.

        Parameters
        ----------
        mixture : Mixture
        features : EncodedFeatures of n items
        targets : ndarray of shape (n, d), float32
        weights : ndarray of shape (n,), float32
            How far each target is to be trusted, above 0.
        landmarks : ndarray of shape (m,), int64
            Which of the items; all of them, in order, or some.
        chunk : int, default=2048
            Items at a time.

        Returns
        -------
        KernelRidge
        """
        chosen = features.take(landmarks)
        # In double precision: rounded, a kernel of few distinct items is not positive semi-definite. In parts, as each
        # takes the kernels of all fields.
        parts = [np.arange(start, min(start + chunk, len(chosen))) for start in range(0, len(chosen), chunk)]
        kernel = np.vstack([mixture.kernel(chosen.take(part), chosen, np.float64) for part in parts])
        small = JITTER * max(float(np.trace(kernel)) / len(kernel), 1e-12)
        right: npt.NDArray[np.float64]
        if len(landmarks) == len(features):
            system, right = kernel, targets[landmarks].astype(np.float64)
            system[np.diag_indices_from(system)] += mixture.noise / weights[landmarks] + small
        else:
            system, right = mixture.noise * kernel, np.zeros((len(landmarks), targets.shape[1]))
            for start in range(0, len(features), chunk):
                part = np.arange(start, min(start + chunk, len(features)))
                cross = mixture.kernel(features.take(part), chosen).astype(np.float64)
                system += cross.T @ (weights[part, None] * cross)
                right += cross.T @ (weights[part, None] * targets[part])
            # A kernel of few distinct items has directions in which nothing is known: they get next to nothing.
            system[np.diag_indices_from(system)] += RELATIVE * max(float(np.trace(system)) / len(system), 1e-12)
        dual = linalg.solve(system, right, assume_a="pos", overwrite_a=True, overwrite_b=True)
        return cls(mixture, chosen, dual.astype(np.float32))

    def predict(self, features: EncodedFeatures, chunk: int = 2048) -> Floats:
        """Vectors of items.

        Parameters
        ----------
        features : EncodedFeatures of n items
        chunk : int, default=2048
            Items at a time.

        Returns
        -------
        ndarray of shape (n, d), float32
        """
        # Once for all that are alike: BLAS may round the same product in another way in another row.
        first, which = distinct_rows(np.zeros(len(features), dtype=np.int64), features.matrix)
        found = np.empty((len(first), self.dual.shape[1]), dtype=np.float32)
        for start in range(0, len(first), chunk):
            part = slice(start, start + chunk)
            found[part] = self.mixture.kernel(features.take(first[part]), self.landmarks) @ self.dual
        return found[which]

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        return {
            "weights": self.mixture.weights,
            "noise": self.mixture.noise,
            "landmarks": self.landmarks,
            "dual": self.dual,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> KernelRidge:
        """The inverse of `to_state`."""
        return cls(Mixture(state["weights"], state["noise"]), state["landmarks"], state["dual"])
