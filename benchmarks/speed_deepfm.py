"""An epoch of `DeepFM` beside one of deepctr-torch's, in one run, in turns.

``pip install --no-deps --target FOLDER deepctr-torch``, then
``PYTHONPATH=FOLDER python -m benchmarks.speed_deepfm --dataset ml-1m``

Both train on the same pairs with the same fields, embedding size, hidden units, dropout and batch size, by Adam. Ours
draws negatives and histories meanwhile; deepctr-torch is handed its pairs, laid out in one matrix before the clock
starts. It pads histories to the longest, so each keeps 50 items at most; beside it runs the same model without a
history. A round is a number of steps, from which the seconds of an epoch follow.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.run import RESULTS, environment
from recsys import FeatureTable
from recsys.datasets import fetch_movielens
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData
from recsys.models.deepfm import MOST_PAIRS, DeepFM
from recsys.nn.pairs import DeepFMTrainer, PairBatch, PairRecipe, PairSampler

# Ours over deepctr-torch's: what is asked for.
TARGET = 0.5
LONGEST_HISTORY = 50
# Members that a field of deepctr-torch keeps.
LONGEST_FIELD = 10

Clocks = tuple[float, float]
Codes = npt.NDArray[np.int64]


def timed(function: Callable[[], Any]) -> Clocks:
    """Seconds on the wall and of all cores together that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def padded(values: Codes, lengths: Codes, longest: int) -> Codes:
    """Lists, one after the other, as rows of a matrix; 0 is no value, and the values move up by 1."""
    place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    kept = place < longest
    matrix = np.zeros((len(lengths), longest), dtype=np.int64)
    matrix[row[kept], place[kept]] = values[kept] + 1
    return matrix


def columns_of(features: EncodedFeatures, side: str) -> dict[str, tuple[Codes, int]]:
    """For each field the columns that each entity has in it, padded, and how many there are."""
    found = {}
    for field in features.fields:
        block = features.block(field)
        lengths = np.diff(block.indptr).astype(np.int64)
        longest = max(1, min(LONGEST_FIELD, int(lengths.max(initial=0))))
        found[f"{side} {field.name}"] = (padded(block.indices.astype(np.int64), lengths, longest), block.shape[1])
    return found


class Contest:
    """The two libraries on the same pairs.

    Parameters
    ----------
    data : TrainingData
    model : DeepFM
        Not fitted; its parameters hold for both.
    n_steps : int
        In a round.
    """

    def __init__(self, data: TrainingData, model: DeepFM, n_steps: int) -> None:
        self.data, self.model = data, model
        self.batch_size = model.batch_size or MOST_PAIRS
        recipe = PairRecipe(
            model.learning_rate, self.batch_size, model.n_negatives, model.id_dropout, model.dropout, model.l2
        )
        net = model._new_net(data, list(model.hidden_units), seed=0)
        self.trainer = DeepFMTrainer(net, PairSampler(data, model.n_negatives), recipe, seed=0)
        sampler, rng = self.trainer.sampler, np.random.default_rng(0)
        steps = sampler.batches(self.batch_size // (1 + model.n_negatives), rng)
        self.share = n_steps / len(steps)
        self.steps = steps[:n_steps]
        self.batches = [sampler.complete(step, rng) for step in self.steps]
        self.n_pairs = sum(len(batch.items) for batch in self.batches)

    def ours(self) -> None:
        """Train on the steps of a round, negatives and histories drawn anew."""
        for step in self.steps:
            self.trainer.step(self.trainer.sampler.complete(step, self.trainer.rng))

    def rival(self, with_history: bool) -> Callable[[], Any]:
        """The same training by deepctr-torch: its model, ready to fit."""
        # It ships no types, and is not among the requirements.
        theirs, inputs_of = (import_module(f"deepctr_torch.{name}") for name in ("models", "inputs"))
        x, sizes = self._layout(with_history)
        width = self.model.n_factors
        fields = []
        for name, values in x.items():
            field = inputs_of.SparseFeat(name, sizes[name] + 1, embedding_dim=width)
            fields.append(field if values.shape[1] == 1 else inputs_of.VarLenSparseFeat(field, values.shape[1], "mean"))
        hidden, dropout = self.model.hidden_units, self.model.dropout
        model = theirs.DeepFM(fields, fields, dnn_hidden_units=hidden, dnn_dropout=dropout)
        model.compile("adam", "binary_crossentropy")
        labels = np.concatenate([np.arange(len(b.items)) < b.n_positives for b in self.batches]).astype(np.float32)
        inputs = {name: values.astype(np.float32) for name, values in x.items()}

        def fit() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                model.fit(inputs, labels, batch_size=self.batch_size, epochs=1, verbose=0)

        return fit

    def _layout(self, with_history: bool) -> tuple[dict[str, Codes], dict[str, int]]:
        """The pairs of a round as columns of codes, and how many codes each has."""
        users = np.concatenate([self.trainer.sampler.problem.query_users[b.queries][b.rows] for b in self.batches])
        items = np.concatenate([batch.items for batch in self.batches])
        x = {"user id": users[:, None] + 1, "item id": items[:, None] + 1}
        sizes = {"user id": self.data.matrix.shape[0], "item id": self.data.matrix.shape[1]}
        sides = (("user", self.data.user_features, users), ("item", self.data.item_features, items))
        for side, features, codes in sides:
            for name, (columns, size) in columns_of(features, side).items():
                x[name], sizes[name] = columns[codes], size
        if with_history:
            x["history"] = np.concatenate([self._histories(batch)[batch.rows] for batch in self.batches])
            sizes["history"] = self.data.matrix.shape[1]
        return x, sizes

    @staticmethod
    def _histories(batch: PairBatch) -> Codes:
        return padded(batch.history, batch.lengths, LONGEST_HISTORY)

    def run(self, rounds: int) -> dict[str, list[Clocks]]:
        """Measure in turns: the clocks of every round, as of a whole epoch."""
        contestants = {
            "recsys": self.ours,
            "deepctr-torch": self.rival(with_history=True),
            "deepctr-torch, no history": self.rival(with_history=False),
        }
        found: dict[str, list[Clocks]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, function in contestants.items():
                wall, cpu = timed(function)
                found[name].append((wall / self.share, cpu / self.share))
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
    settings, medians = values["settings"], values["medians"]
    lines = [
        f"# An epoch of DeepFM beside deepctr-torch: {values['dataset']}\n",
        f"{settings['n_factors']} factors, hidden units {tuple(settings['hidden_units'])}, "
        f"{settings['n_negatives']} negatives a positive, {settings['batch_size']:,} pairs a step; "
        f"{settings['threads']} threads on {values['environment']['cores']} cores; medians of {settings['rounds']} "
        f"rounds in turns, each of {settings['steps']} steps ({values['n_pairs']:,} pairs), scaled to an epoch. Load "
        f"of the machine before: {values['load']:.2f}.\n",
        "| | an epoch, s | CPU s | recsys over it | at most |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (wall, cpu) in medians.items():
        ratio = "" if name == "recsys" else f"{medians['recsys'][0] / wall:.2f}"
        bound = f"{TARGET:.1f}" if name == "deepctr-torch" else ""
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {ratio} | {bound} |")
    lines.append(f"\nHistories have {LONGEST_HISTORY} items at most in deepctr-torch, any number in recsys.")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="in a round (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=MOST_PAIRS, help="pairs in a step (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    ml = fetch_movielens(options.dataset)
    model = DeepFM(batch_size=options.batch_size, max_iter=1, random_state=0)
    X = ml.interactions[["user_id", "item_id"]]
    # Encodes the features; what it learns in one epoch is not used.
    model.fit(X, user_features=FeatureTable(ml.users), item_features=FeatureTable(ml.items))
    data = TrainingData(model.history_, model.user_features_, model.item_features_, None)
    contest = Contest(data, model, options.steps)
    found = contest.run(options.rounds)
    run = {"threads": options.threads, "rounds": options.rounds, "steps": options.steps}
    values = {
        "dataset": ml.name,
        "environment": environment(),
        "load": load,
        "settings": {**model.get_params(), **run},
        "n_pairs": contest.n_pairs,
        "medians": {name: np.median(rounds, axis=0).tolist() for name, rounds in found.items()},
        "rounds": found,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"speed-deepfm-{ml.name}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()
