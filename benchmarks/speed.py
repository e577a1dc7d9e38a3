"""Alternating least squares and recommend-for-all beside `implicit`'s, EASE beside plain NumPy, in one run, in turns.

``python -m benchmarks.speed --dataset ml-1m``

Both factorise the same leave-last-out train matrix with the same objective: `implicit` takes the confidence itself,
``alpha`` times the value, as weight of a positive, where this package takes ``1 + alpha * r``; so it is given the
matrix of ``1 + alpha * r`` and ``alpha=1``. Each round measures one after the other, so that what else the machine does
meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import implicit
import numpy as np
import pandas as pd
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from recsys import EASE, MatrixFactorization
from recsys.datasets import fetch_movielens
from recsys.evaluation import LeaveLastOut
from recsys.models._als import als_half_step
from recsys.topk import top_k_chunks

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("recsys", "implicit", "numpy", "scipy", "pandas", "scikit-learn", "threadpoolctl")
K = 10
# Ours over the peer's, at most.
TARGETS = {"ALS, one iteration": 1.2, "recommend to all users": 1.0, "`EASE.fit` (NumPy)": 1.0}

Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Seconds on the wall and of all cores together."""
    return time.perf_counter(), time.process_time()


def since(start: Clocks) -> Clocks:
    """Seconds that have passed on both clocks."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


def timed(function: Callable[[], Any]) -> Clocks:
    """Seconds on both clocks that a call takes."""
    start = clocks()
    function()
    return since(start)


class Contest:
    """The two libraries on the same data with the same settings.

    Parameters
    ----------
    train, test : DataFrame
        Columns user_id and item_id.
    model : MatrixFactorization
        Not fitted; its parameters hold for both.
    threads : int
    """

    def __init__(self, train: pd.DataFrame, test: pd.DataFrame, model: MatrixFactorization, threads: int) -> None:
        self.train, self.test, self.model, self.threads = train, test, model, threads
        self.model.fit(train)
        self.matrix = model.history_
        self.by_user, self.by_item = self.matrix, self.matrix.T.tocsr()
        self.confidence = sparse.csr_matrix(self.matrix, copy=True)
        self.confidence.data = 1 + model.alpha * self.confidence.data
        self.users = np.arange(self.matrix.shape[0])
        self.ease = EASE(l2=400.0)
        self.rival = self.new_rival(model.max_iter)
        self.rival.fit(self.confidence, show_progress=False)

    def new_rival(self, iterations: int) -> Any:
        """The model of implicit that corresponds to ours, not fitted."""
        return implicit.als.AlternatingLeastSquares(
            factors=self.model.n_factors,
            regularization=self.model.l2,
            alpha=1.0,
            iterations=iterations,
            num_threads=self.threads,
            random_state=0,
        )

    def iterations(self, n: int = 4) -> Clocks:
        """Our mean time of an iteration, the first of n not counted."""
        rng = np.random.default_rng(0)
        users, items = (rng.random((size, self.model.n_factors), np.float32) for size in self.matrix.shape)
        start = clocks()
        for step in range(n):
            start = clocks() if step == 1 else start
            settings: Any = {"alpha": self.model.alpha, "regularization": self.model.l2, "n_jobs": self.threads}
            users = als_half_step(self.by_user, items, users, **settings)
            items = als_half_step(self.by_item, users, items, **settings)
        wall, cpu = since(start)
        return wall / (n - 1), cpu / (n - 1)

    def rival_iterations(self, n: int = 4) -> Clocks:
        """The mean time of an iteration of implicit, the first of n not counted."""
        ends: list[Clocks] = []
        self.new_rival(n).fit(self.confidence, show_progress=False, callback=lambda *_: ends.append(clocks()))
        (first_wall, first_cpu), (last_wall, last_cpu) = ends[0], ends[-1]
        return (last_wall - first_wall) / (n - 1), (last_cpu - first_cpu) / (n - 1)

    def recommend(self) -> pd.DataFrame:
        """Our top-k of all users without what they have seen, as a frame of ids."""
        user_factors, transposed = self.model.user_factors_, self.model.item_factors_.T
        codes, scores, lengths = top_k_chunks(
            lambda rows: user_factors[rows] @ transposed,
            *self.matrix.shape,
            K,
            exclude=self.matrix,
            n_jobs=self.threads,
        )
        valid = codes >= 0
        return pd.DataFrame(
            {
                "user_id": self.model.users_.ids.take(np.repeat(self.users, lengths)),
                "item_id": self.model.items_.ids.take(codes[valid]),
                "score": scores[valid],
                "rank": np.nonzero(valid)[1] + 1,
            }
        )

    def rival_recommend(self, rival: Any) -> pd.DataFrame:
        """The same by implicit, its answer in a frame for `ndcg`."""
        codes, _ = rival.recommend(self.users, self.confidence, N=K)
        return pd.DataFrame(
            {
                "user_id": self.model.users_.ids.take(np.repeat(self.users, K)),
                "item_id": self.model.items_.ids.take(codes.ravel()),
                "rank": np.tile(np.arange(K) + 1, len(codes)),
            }
        )

    def plain_ease(self) -> Any:
        """EASE as its paper writes it, with a Cholesky factor, from a matrix that is ready."""
        binary = self.confidence.copy()
        binary.data = np.ones_like(binary.data, dtype=np.float64)
        gram = (binary.T @ binary).toarray()
        gram[np.diag_indices_from(gram)] += self.ease.l2
        inverse = linalg.cho_solve(linalg.cho_factor(gram, lower=True), np.eye(len(gram)))
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return weights

    def ndcg(self, recommended: pd.DataFrame) -> float:
        """NDCG@10 of the one test item of each user."""
        hits = recommended.merge(self.test, on=["user_id", "item_id"])
        return float((1 / np.log2(hits["rank"] + 1)).sum() / len(self.test))

    def run(self, rounds: int) -> dict[str, dict[str, list[Clocks]]]:
        """Measure in turns: by what is measured and by library, the clocks of every round."""
        same_factors = self.new_rival(1)
        same_factors.user_factors, same_factors.item_factors = self.model.user_factors_, self.model.item_factors_

        def rival_answer() -> Any:
            return same_factors.recommend(self.users, self.confidence, N=K, filter_already_liked_items=True)

        everyone = self.model.users_.ids
        contests: dict[str, tuple[Callable[[], Clocks], Callable[[], Clocks]]] = {
            "ALS, one iteration": (self.iterations, self.rival_iterations),
            "recommend to all users": (lambda: timed(self.recommend), lambda: timed(rival_answer)),
            "`MatrixFactorization.recommend`": (
                lambda: timed(lambda: self.model.recommend(everyone, k=K)),
                lambda: timed(rival_answer),
            ),
            "`MatrixFactorization.fit`": (
                lambda: timed(lambda: self.model.fit(self.train)),
                lambda: timed(lambda: self.new_rival(self.model.max_iter).fit(self.confidence, show_progress=False)),
            ),
            "`EASE.fit` (NumPy)": (lambda: timed(lambda: self.ease.fit(self.train)), lambda: timed(self.plain_ease)),
        }
        found: dict[str, dict[str, list[Clocks]]] = {name: {"recsys": [], "peer": []} for name in contests}
        for _ in range(rounds):
            for name, (ours, theirs) in contests.items():
                found[name]["recsys"].append(ours())
                found[name]["peer"].append(theirs())
        return found


def markdown(values: dict[str, Any]) -> str:
    """The result as Markdown.

    Parameters
    ----------
    values : dict
        As `main` writes them to JSON.

    Returns
    -------
    str
    """
    settings, about, ndcg = values["settings"], values["environment"], values["ndcg"]
    lines = [
        f"# Speed beside implicit {about['packages']['implicit']}: {values['dataset']}\n",
        f"{values['n_users']:,} users, {values['n_items']:,} items, {values['n_positives']:,} positives (train part of "
        f"leave-last-out); {settings['n_factors']} factors, {settings['max_iter']} iterations, alpha "
        f"{settings['alpha']:g}, l2 {settings['l2']:g}; {settings['threads']} threads each on {about['cores']} cores; "
        f"medians of {settings['rounds']} rounds in turns. Load of the machine before: {values['load']:.2f}.\n",
        "| | recsys, s | peer, s | ratio | at most | recsys, CPU s | peer, CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in values["medians"].items():
        bound = f"{TARGETS[name]:.1f}" if name in TARGETS else ""
        cells = [row["recsys"][0], row["peer"][0], row["recsys"][0] / row["peer"][0]]
        cells += [row["recsys"][1], row["peer"][1]]
        text = [f"{cell:.3f}" for cell in cells]
        lines.append(f"| {name} | {text[0]} | {text[1]} | {float(text[2]):.2f} | {bound} | {text[3]} | {text[4]} |")
    lines.append(
        f"\nNDCG@{K} of the last item of each user, full ranking: recsys {ndcg['recsys']:.4f}, "
        f"implicit {ndcg['implicit']:.4f}. Recommending to all users builds a frame of ids here, arrays of codes in "
        f"implicit; seen items are left out, both on the factors of recsys. The methods of the estimator read ids, "
        f"count, and check; the peer, implicit or NumPy, is handed a matrix."
    )
    if values["dataset"] == "ml-1m":
        lines.append("\nML-1M, 7.9 % of timestamps estimated: this touches which item is a user's last.")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each library (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    data = fetch_movielens(options.dataset)
    pairs = data.interactions[["user_id", "item_id"]]
    [split] = LeaveLastOut().splits(pairs, groups=data.interactions["timestamp"])
    # implicit asks for this: its own threads would fight those of BLAS. EASE and its peer have the same one thread.
    with threadpool_limits(1, "blas"):
        model = MatrixFactorization(n_factors=64, alpha=1.0, l2=30.0, random_state=0)
        contest = Contest(pairs.iloc[split.train], pairs.iloc[split.test], model, options.threads)
        ndcg = {
            "recsys": contest.ndcg(contest.recommend()),
            "implicit": contest.ndcg(contest.rival_recommend(contest.rival)),
        }
        found = contest.run(options.rounds)
    values = {
        "dataset": data.name,
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "packages": {name: version(name) for name in PACKAGES},
        },
        "load": load,
        "settings": {**model.get_params(), "threads": options.threads, "rounds": options.rounds},
        "n_users": contest.matrix.shape[0],
        "n_items": contest.matrix.shape[1],
        "n_positives": contest.matrix.nnz,
        "ndcg": ndcg,
        "medians": {
            name: {library: np.median(rounds, axis=0).tolist() for library, rounds in row.items()}
            for name, row in found.items()
        },
        "rounds": found,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"speed-{data.name}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()
