"""Approximate search: FAISS's inverted lists and its graph, and how far they must look. Imports NumPy and FAISS alone.

An approximate structure only proposes rows; their scores are those of the exact vectors. Where it would read as many
rows as a filter leaves, or proposes fewer than there are, the exact scan answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from recsys.retrieval._segments import (
    Answer,
    Doubles,
    Floats,
    Pairs,
    Selection,
    best_first,
    exact_top_k,
    faiss,
    inner_products,
    lengths_of,
    slack_of,
)

__all__ = ["Approximate", "Compression", "build", "perturbed", "recall_of", "tune"]

Compression: TypeAlias = Literal["sq8", "pq"] | None

# Neighbours of a row in the graph, on its lowest level twice as many.
_GRAPH_DEGREE = 32
# Vectors per list that k-means learns from: four times fewer than FAISS takes, four times faster, and as good.
_TRAINED_ON = 64
# How many rows are proposed for each that is asked for: what compression confuses, the exact scores put right.
_PROPOSED = {None: 1, "sq8": 2, "pq": 16}

_TUNED_QUERIES = 256
_TUNED_K = 10
# Noise on an item's vector, of this share of its length, makes a query that was not indexed.
_NOISE = 0.5


@dataclass(frozen=True, eq=False)
class Approximate:
    """A FAISS structure over the rows of a segment, and how far it looks.

    Attributes
    ----------
    kind : {"ivf", "hnsw"}
    compression : {"sq8", "pq"} or None
    index : faiss.Index
    effort : int
        nprobe, the lists that are read, or efSearch, the nodes of the graph that are kept in view.
    recall : float
        What `tune` measured with that.
    """

    kind: str
    compression: Compression
    index: Any
    effort: int
    recall: float

    @cached_property
    def vectors(self) -> Floats | None:
        """The vectors that it holds, as a view; None where it holds others or codes of them."""
        if self.kind != "hnsw" or self.compression is not None:
            return None
        n, d = self.index.ntotal, self.index.d
        stored: Floats = faiss().rev_swig_ptr(faiss().downcast_index(self.index.storage).get_xb(), n * d).reshape(n, d)
        stored.flags.writeable = False
        return stored

    @property
    def most_effort(self) -> int:
        """The effort beyond which a scan of everything is cheaper, or nothing is left to read."""
        return int(self.index.nlist) if self.kind == "ivf" else max(16, int(self.index.ntotal) // _GRAPH_DEGREE)

    @property
    def saves_work(self) -> bool:
        """Whether it reads so few rows that a scan would be slower: rows that lie apart are read half as fast."""
        return bool(self._rows_read(self.effort) < self.index.ntotal / 2)

    def _rows_read(self, effort: int) -> float:
        return effort * (self.index.ntotal / self.index.nlist if self.kind == "ivf" else _GRAPH_DEGREE)

    def top_k(
        self,
        vectors: Floats,
        queries: Floats,
        k: int,
        slack: Doubles,
        selection: Selection | None,
        pairs: Pairs | None,
    ) -> Answer:
        """As `exact_top_k`, but that better rows may be missing; as many come back."""
        n_allowed = len(vectors) if selection is None else selection.n_allowed
        k = min(k, n_allowed)
        size = k * _PROPOSED[self.compression] + (0 if pairs is None else int(np.diff(pairs.indptr).max(initial=0)))
        # The best lie farther away the fewer are allowed and the more are asked for than when this was tuned.
        farther = len(vectors) / max(1, n_allowed) * max(1.0, np.sqrt(k / _TUNED_K))
        # In a graph, fewer nodes in view than are asked for would be filled up at random.
        least = size if self.kind == "hnsw" else 1
        effort = min(self.most_effort, max(least, int(np.ceil(self.effort * farther))))
        if min(size, n_allowed) >= n_allowed / 2 or n_allowed <= self._rows_read(effort):
            return exact_top_k(vectors, queries, k, slack, selection, pairs)
        rows = self.index.search(queries, size, params=self._parameters(effort, selection))[1]
        if pairs is not None:
            rows[pairs.listed(rows)] = -1
        scores = inner_products(queries, vectors, rows)
        scores[rows < 0] = -np.inf
        best = best_first(rows, scores)
        answer = Answer(best.codes[:, :k].copy(), best.scores[:, :k].copy())
        if len(short := np.flatnonzero(answer.codes[:, -1] < 0)):
            of_short = None if pairs is None else pairs.of(short)
            exact = exact_top_k(vectors, queries[short], k, slack[short], selection, of_short)
            answer.codes[short], answer.scores[short] = exact
        return answer

    def _parameters(self, effort: int, selection: Selection | None) -> Any:
        selector = {} if selection is None else {"sel": selection.bitmap}
        if self.kind == "ivf":
            return faiss().SearchParametersIVF(nprobe=effort, **selector)
        return faiss().SearchParametersHNSW(efSearch=effort, **selector)


def build(vectors: Floats, kind: str, compression: Compression) -> Approximate:
    """Learn a structure over vectors, (n, d), for inner products; `tune` makes it look far enough.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), float32
        At least 256 rows where they are compressed by "pq".
    kind : {"ivf", "hnsw"}
    compression : {"sq8", "pq"} or None

    Returns
    -------
    Approximate
    """
    n, d = vectors.shape
    # Four numbers make a byte, or as many as divide the vector evenly.
    codes = {None: "Flat", "sq8": "SQ8", "pq": f"PQ{next(m for m in range(max(1, d // 4), 0, -1) if d % m == 0)}"}
    n_lists = max(1, min(round(4 * np.sqrt(n)), n // 39))
    prefix = f"IVF{n_lists}" if kind == "ivf" else f"HNSW{_GRAPH_DEGREE}"
    index = faiss().index_factory(d, f"{prefix},{codes[compression]}", faiss().METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAINED_ON
    if compression == "pq":
        quantized = index if kind == "ivf" else faiss().downcast_index(index.storage)
        # Codes that can be compared bit by bit take most of the training, and nothing here compares them so.
        quantized.do_polysemous_training, quantized.pq.cp.min_points_per_centroid = False, 1
    index.train(vectors)
    index.add(vectors)
    return Approximate(kind, compression, index, effort=1, recall=0.0)


def tune(structure: Approximate, vectors: Floats, queries: Floats | None, target: float) -> Approximate:
    """Find about the least effort whose measured recall of the 10 best reaches the target; the most, if none does.

    Parameters
    ----------
    structure : Approximate
    vectors : ndarray of shape (n, d), float32
        The rows that it was built of.
    queries : ndarray of shape (m, d), float32, or None
        At most 256 of them are asked. None: rows of `vectors` with noise.
    target : float

    Returns
    -------
    Approximate
    """
    if queries is None:
        queries = perturbed(vectors)
    queries = queries[:: max(1, -(-len(queries) // _TUNED_QUERIES))]
    slack = slack_of(lengths_of(queries), float(lengths_of(vectors).max(initial=0)), vectors.shape[1])
    k = min(_TUNED_K, len(vectors))
    truth = exact_top_k(vectors, queries, k, slack, None, None)

    def measured(effort: int) -> Approximate:
        tried = replace(structure, effort=effort)
        return replace(tried, recall=recall_of(tried.top_k(vectors, queries, k, slack, None, None), truth))

    low, best = 0, measured(1)
    while best.recall < target and best.effort < structure.most_effort:
        low, best = best.effort, measured(min(2 * best.effort, structure.most_effort))
    while best.recall >= target and best.effort - low > max(1, best.effort // 16):
        middle = measured((low + best.effort) // 2)
        low, best = (low, middle) if middle.recall >= target else (middle.effort, best)
    return best


def perturbed(vectors: Floats) -> Floats:
    """Queries that are like the vectors, (n, d), but none of them: some of these with noise of half their length."""
    rng = np.random.default_rng(0)
    chosen = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), _TUNED_QUERIES), replace=False))]
    noise = rng.standard_normal(chosen.shape) / np.sqrt(chosen.shape[1])
    return np.asarray(chosen + _NOISE * lengths_of(chosen)[:, None] * noise, dtype=np.float32)


def recall_of(answer: Answer, truth: Answer) -> float:
    """The share of the exact answer that was found; what ties with its last row is as good as that."""
    if not truth.codes.size:
        return 1.0
    worst = np.where(truth.codes >= 0, truth.scores, np.inf).min(axis=1, keepdims=True)
    n_found = ((answer.codes >= 0) & (answer.scores >= worst)).sum(axis=1)
    n_there = (truth.codes >= 0).sum(axis=1)
    return float(n_found.sum() / max(1, n_there.sum()))
