"""Whether the statistics keep their word: coverage of intervals and false positives, on simulated metrics of users.

``python -m benchmarks.statistics``

Metrics are drawn in the shapes that real ones have: bounded, and zero for most users. What makes a user easy for one
model makes it easy for the others (a Gaussian copula), so values are paired as real ones are. All means are known
exactly. Every share is over thousands of data sets, each with an interval or a test of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom, norm

from benchmarks.run import RESULTS, environment
from recsys.evaluation import holm, max_t_test, paired_bootstrap, randomisation_test

Values = npt.NDArray[np.float64]

N_USERS = (30, 100, 1_000, 3_000)
N_MODELS = 10
ALPHA = 0.05
# How alike two models find a user.
CORRELATION = 0.7
# Data sets that share the draws of one call.
BATCH = 50
GAINS = 1 / np.log2(np.arange(10) + 2.0)


@dataclass(frozen=True)
class Shape:
    """A metric of users: its values, and how often a model, a worse one, and another of the same mean have each."""

    name: str
    values: Values
    model: Values
    worse: Values
    other: Values

    @property
    def zeros(self) -> float:
        """The share of users who get nothing from the model."""
        return float(self.model[self.values == 0].sum())


def one_item(hit_rate: float) -> Values:
    """How often NDCG@10 of one test item has each value, 0 first: ranks of hits as often as 1 / rank."""
    ranks = 1 / np.arange(1, 11)
    return np.concatenate([[1 - hit_rate], hit_rate * ranks / ranks.sum()])


def shapes() -> list[Shape]:
    """The metrics, as leave-last-out and splits with many test items have them."""
    gains = np.concatenate([[0.0], GAINS])
    # Hits at any rank as often, and as many of them as give the same mean.
    flat = np.concatenate([[0.0], np.full(10, one_item(0.15) @ gains / GAINS.sum())])
    flat[0] = 1 - flat.sum()
    hits = np.arange(11)
    many = [betabinom(10, *beta).pmf(hits) for beta in ((0.4, 3.6), (0.36, 3.64), (2.0, 18.0))]
    return [
        Shape("HR@10, one test item", np.array([0.0, 1.0]), *(np.array([1 - p, p]) for p in (0.1, 0.08, 0.1))),
        Shape("NDCG@10, one test item", gains, one_item(0.15), one_item(0.12), flat),
        Shape("Recall@10, ten test items", hits / 10, *many),
    ]


def drawn(values: Values, chances: list[Values], n_users: int, n_sets: int, rng: np.random.Generator) -> Values:
    """Values of the users, of several models that agree on who is easy.

    Returns
    -------
    ndarray of shape (n_models, n_users, n_sets)
    """
    user = np.sqrt(CORRELATION) * rng.normal(size=(n_users, n_sets))
    found = []
    for chance in chances:
        latent = user + np.sqrt(1 - CORRELATION) * rng.normal(size=user.shape)
        steps = norm.ppf(np.cumsum(chance)[:-1])
        found.append(values[np.searchsorted(steps, latent)])
    return np.stack(found)


def simulate(shape: Shape, n_users: int, n_sets: int, n_resamples: int, seed: int) -> dict[str, Any]:
    """Coverage and false positives of one metric and number of users.

    Parameters
    ----------
    shape : Shape
    n_users, n_sets, n_resamples, seed : int

    Returns
    -------
    dict
        Shares of the data sets: `coverage`, whose interval of the difference from a worse model holds the true one;
        `false_positive`, where two models alike differ by p < 0.05, and `same_mean`, two of the same mean alone;
        `holm`, where any of nine models differs from a tenth that is alike, by adjusted p values, and `unadjusted`;
        `from_best`, the same where the tenth is the one that came out best; `max_t`, where any two of the ten differ by
        `max_t_test`.
    """
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(("coverage", "false_positive", "same_mean", "unadjusted", "holm", "from_best", "max_t"), 0.0)
    truth = float((shape.model - shape.worse) @ shape.values)
    for start in range(0, n_sets, BATCH):
        size = min(BATCH, n_sets - start)
        options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": int(rng.integers(2**31))}

        def p_values(a: Values, b: Values, options: dict[str, Any] = options) -> Values:
            return np.asarray(randomisation_test(a, b, **options))

        a, worse, other = drawn(shape.values, [shape.model, shape.worse, shape.other], n_users, size, rng)
        _, low, high = paired_bootstrap(a, worse, confidence=1 - ALPHA, **options)
        counts["coverage"] += np.sum((low <= truth) & (truth <= high))
        counts["same_mean"] += np.sum(p_values(a, other) < ALPHA)
        alike = drawn(shape.values, [shape.model] * N_MODELS, n_users, size, rng)
        first = np.array([p_values(model, alike[0]) for model in alike[1:]])
        counts["false_positive"] += np.sum(first[0] < ALPHA)
        counts["unadjusted"] += np.sum(first.min(axis=0) < ALPHA)
        counts["holm"] += sum(holm(family).min() < ALPHA for family in first.T)
        best = alike[alike.mean(axis=1).argmax(axis=0), :, np.arange(size)].T
        # The best against itself has p = 1, which no correction of the others lowers: it is left out.
        from_best = np.sort([p_values(model, best) for model in alike], axis=0)[:-1]
        counts["from_best"] += sum(holm(family).min() < ALPHA for family in from_best.T)
        # Any two: the best and another are among them.
        every_pair = max_t_test(np.moveaxis(alike, 0, 1), **options)
        counts["max_t"] += np.sum(every_pair.min(axis=(0, 1)) < ALPHA)
    shares = {name: float(count) / n_sets for name, count in counts.items()}
    return {"metric": shape.name, "zeros": shape.zeros, "users": n_users, **shares}


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
    n_sets = values["sets"]
    error = float(np.sqrt(ALPHA * (1 - ALPHA) / n_sets))
    lines = [
        "# Whether the statistics keep their word\n",
        f"Each row {n_sets:,} simulated data sets for the interval and as many for the tests, {values['resamples']:,} "
        f"resamples each; models agree on who is easy (correlation {CORRELATION} of the normal scores). A share of 5 % "
        f"is measured to ± {error:.1%} (one standard error). Took {values['seconds']:.0f} s on one process.\n",
        "| metric | zeros | users | coverage, meant 95 % | false positives, meant 5 % | same means, meant 5 % "
        "| any of 9, unadjusted | any of 9, Holm, at most 5 % | any of 9 from the best, Holm "
        "| any of 10 from any other, max-T, at most 5 % |",
        f"| --- |{' ---: |' * 9}",
    ]
    shares = ("coverage", "false_positive", "same_mean", "unadjusted", "holm", "from_best", "max_t")
    for row in values["results"]:
        cells = [row["metric"], f"{row['zeros']:.0%}", f"{row['users']:,}", *(f"{row[name]:.1%}" for name in shares)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "\n- **coverage**: how often the paired bootstrap interval holds the true difference from a worse model.",
        "- **false positives**: how often the randomisation test gives p < 0.05 for two models that are alike.",
        "- **same means**: the same for two models whose values are spread otherwise around the same mean (values of 0 "
        "and 1 cannot be: there they are alike).",
        "- **any of 9**: how often at least one of nine models seems to differ from a tenth, all ten alike: by plain p "
        "values, and by those that Holm adjusted. The tenth is chosen beforehand, as a baseline is.",
        "- **from the best**: the tenth is the one that came out best. It was chosen for being ahead, which Holm knows "
        "nothing of.",
        "- **max-T**: any two of the ten by `max_t_test`, by which `Report.frame()` compares all with the best.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Simulate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4_000, help="data sets a row (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=1_000, help="of each test (default: %(default)s)")
    parser.add_argument("--users", type=int, nargs="+", default=list(N_USERS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    results = [
        simulate(shape, n_users, options.sets, options.resamples, seed)
        for seed, (shape, n_users) in enumerate((shape, n) for shape in shapes() for n in options.users)
    ]
    values = {
        "environment": environment(),
        "seconds": round(time.perf_counter() - started, 1),
        "sets": options.sets,
        "resamples": options.resamples,
        "results": results,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "statistics"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
