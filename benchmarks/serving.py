"""What the service does at rising load: answers within 10 ms, and what it refuses beyond what it can do.

``python -m benchmarks.serving [--dataset ml-1m] [--bundle FOLDER] [--seconds 10]``

Starts `recsys serve` on loopback, in a process of its own with the bundle in FOLDER (or of `ContrastiveRecommender`,
fitted here), and sends requests of one user, hot, few-shot, warm and cold ones in turn, at times drawn at random,
whether earlier ones are answered or not. Times count from when a request was due, so a client that is late hides
nothing. Every answer is compared with that of the bundle. Rates rise until fewer than 99% of the answers come within
10 ms; then come twice the last good rate, and half of it, to see whether the service recovers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bundle import requests_of
from recsys import ContrastiveRecommender, FeatureTable
from recsys.datasets import fetch_movielens
from recsys.retrieval import load_bundle

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
DATASETS = ("ml-100k", "ml-1m")
SERVER = ("-m", "recsys", "serve")
# Within which seconds an answer is of use, and which share of answers must be.
TARGET, SHARE = 0.01, 0.99
# Requests a second of the first step, and how much more each further one asks for.
FIRST, GROWTH, MOST_STEPS = 50.0, 1.25, 30
N_REQUESTS, N_CONNECTIONS = 200, 256
HEAD = "POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


class Asked(NamedTuple):
    """A request as it is sent, and the items and scores of its answer."""

    sent: bytes
    item_ids: list[Any]
    scores: list[float]


class Done(NamedTuple):
    """What became of a request: seconds are from when it was due; status 0 if the connection broke."""

    place: int
    late: float
    seconds: float
    status: int
    body: bytes


def asked_of(bundle: Any, data: Any, n: int) -> list[Asked]:
    """Requests of every path in turn, with the bundle's own answers."""
    asked = []
    for some in zip(*requests_of(data, n).values(), strict=True):
        for request in some:
            [user] = request["users"]
            body = {"user": user}
            for name, argument in (("features", "user_features"), ("interactions", "interactions")):
                if argument in request:
                    body[name] = request[argument][user]
            [found] = bundle.recommend(**request)
            text = json.dumps(body).encode()
            head = f"{HEAD}content-length: {len(text)}\r\n\r\n"
            asked.append(Asked(head.encode() + text, found.item_ids, found.scores))
    return asked


class Connection(asyncio.Protocol):
    """A connection that is kept open, with one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._got = b""
        self._then: Callable[[int, bytes], None] | None = None

    def connection_made(self, transport: Any) -> None:
        """It is open."""
        self._transport = transport
        self._pool.take_back(self)

    def ask(self, sent: bytes, then: Callable[[int, bytes], None]) -> None:
        """Send a request; `then` is called with the status and the body of its answer."""
        self._then = then
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        """Some of an answer is here."""
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if gap and len(body) >= int(re.findall(rb"\r\ncontent-length: (\d+)", head)[0]):
            self._got = b""
            self._end(int(head[9:12]), body)
            self._pool.take_back(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It broke, or was ended."""
        self._end(0, b"")

    def _end(self, status: int, body: bytes) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(status, body)

    def close(self) -> None:
        """End it."""
        self._transport.close()


class Pool:
    """Connections, and what waits for one to be free."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._waiting: deque[tuple[bytes, Callable[[int, bytes], None]]] = deque()

    async def open(self, host: str, port: int, n: int) -> None:
        """Open n connections."""
        loop = asyncio.get_running_loop()
        for _ in range(n):
            self._all.append((await loop.create_connection(lambda: Connection(self), host, port))[1])

    def ask(self, sent: bytes, then: Callable[[int, bytes], None]) -> None:
        """Send a request as soon as a connection is free."""
        if self._idle:
            self._idle.pop().ask(sent, then)
        else:
            self._waiting.append((sent, then))

    def take_back(self, connection: Connection) -> None:
        """A connection is free."""
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """End all."""
        for each in self._all:
            each.close()


async def drive(pool: Pool, asked: list[Asked], rate: float, seconds: float, rng: np.random.Generator) -> list[Done]:
    """Send requests at random times, `rate` a second on average, and wait for all answers."""
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds))).tolist()
    places = rng.integers(0, len(asked), len(due)).tolist()
    found: list[Done] = []
    all_done = asyncio.get_running_loop().create_future()
    start = time.perf_counter()

    def send(place: int, moment: float) -> None:
        late = time.perf_counter() - moment

        def then(status: int, body: bytes) -> None:
            found.append(Done(place, late, time.perf_counter() - moment, status, body))
            if len(found) == len(due):
                all_done.set_result(None)

        pool.ask(asked[place].sent, then)

    for place, after in zip(places, due, strict=True):
        wait = start + after - time.perf_counter()
        # A shorter sleep is longer than it says.
        if wait > 0.0005:
            await asyncio.sleep(wait - 0.0003)
        send(place, start + after)
    await asyncio.wait_for(all_done, 120)
    return found


def is_right(done: Done, asked: list[Asked]) -> bool:
    """Whether an answer is the bundle's own, but for rounding in other company."""
    items = json.loads(done.body)["items"]
    expected = asked[done.place]
    scores = np.array([item["score"] for item in items])
    if len(items) != len(expected.scores) or np.abs(scores - expected.scores).max(initial=0) > 1e-4:
        return False
    changed = [item["id"] != label for item, label in zip(items, expected.item_ids, strict=True)]
    # Items that change places score alike.
    return not any(changed) or float(np.ptp(scores[changed])) < 1e-4


def summary(found: list[Done], asked: list[Asked], rate: float, seconds: float) -> dict[str, Any]:
    """What a step shows."""
    answered = [each for each in found if each.status == 200]
    times = np.array([each.seconds for each in answered])
    right = np.array([is_right(each, asked) for each in answered], dtype=bool)
    good = int(np.count_nonzero(right & (times <= TARGET)))
    shed = [each.seconds for each in found if each.status == 503]
    return {
        "rate": rate,
        "sent": len(found),
        "good a second": good / seconds,
        "good": good / len(found),
        "shed": len(shed) / len(found),
        "failed": sum(each.status not in (200, 503) for each in found),
        "wrong": int(np.count_nonzero(~right)),
        "median ms": 1e3 * float(np.median(times)) if len(times) else None,
        "99% ms": 1e3 * float(np.quantile(times, 0.99)) if len(times) else None,
        "shed 99% ms": 1e3 * float(np.quantile(shed, 0.99)) if shed else None,
        "client late 99% ms": 1e3 * float(np.quantile([each.late for each in found], 0.99)),
    }


def batches(url: str) -> tuple[float, float]:
    """How many batches there were, and how many questions in them."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    count, total = (float(re.findall(rf"^recsys_batch_size_{name} (\S+)$", text, re.M)[0]) for name in ("count", "sum"))
    return count, total


async def measure(url: str, asked: list[Asked], seconds: float) -> dict[str, Any]:
    """The curve, twice the best rate, and half of it."""
    host, port = url.removeprefix("http://").split(":")
    pool, rng = Pool(), np.random.default_rng(0)
    await pool.open(host, int(port), N_CONNECTIONS)

    async def step(rate: float, name: str) -> dict[str, Any]:
        before = batches(url)
        found = summary(await drive(pool, asked, rate, seconds, rng), asked, rate, seconds)
        n, total = np.subtract(batches(url), before)
        print(f"{name}: {json.dumps(found)}", flush=True)
        return {**found, "batch": float(total / n)}

    await drive(pool, asked, FIRST, min(seconds, 2.0), rng)
    curve, best = [], None
    for number in range(MOST_STEPS):
        found = await step(FIRST * GROWTH**number, "rising")
        curve.append(found)
        if found["good"] >= SHARE:
            best = found
        # One bad step may be the machine's.
        elif len(curve) > 1 and curve[-2]["good"] < SHARE:
            break
    rate = FIRST if best is None else best["rate"]
    over, after = await step(2 * rate, "twice"), await step(rate / 2, "half")
    pool.close()
    return {"curve": curve, "best": None if best is None else best["rate"], "twice": over, "half": after}


@contextmanager
def served(bundle: Path, max_wait: float) -> Iterator[str]:
    """The address of a service, in a process of its own with one thread for each product."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, *SERVER, str(bundle), "--port", "0", "--max-wait", str(max_wait), "--drain", "0"],
        cwd=ROOT,
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        told = next(line for line in process.stdout if line.startswith("Serving "))
        yield told.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def _row(name: str, step: dict[str, Any]) -> str:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    return (
        f"| {name} | {step['rate']:.0f} | {step['good a second']:.0f} | {step['good']:.1%} | {step['shed']:.1%} | "
        f"{shown(step['median ms'])} | {shown(step['99% ms'])} | {shown(step['shed 99% ms'])} | {step['batch']:.1f} | "
        f"{step['client late 99% ms']:.1f} | {step['failed'] + step['wrong']} |"
    )


def markdown(values: dict[str, Any]) -> str:
    """The table of the results."""
    found, about = values["found"], values["environment"]
    steps = [("rising", step) for step in found["curve"]] + [("twice", found["twice"]), ("half", found["half"])]
    best = "at no rate" if found["best"] is None else f"up to {found['best']:.0f} requests a second"
    n = sum(step["sent"] for _, step in steps)
    lines = [
        f"# The service at rising load: {values['dataset']}\n",
        f"Written by `python -m benchmarks.serving --dataset {values['dataset']}`. {about['model']} "
        f"({about['n_items']} items, {about['n_users']} users). Python {about['python']} on {about['system']} "
        f"{about['machine']}, {about['cores']} cores for the service and the client, load {values['load']:.1f} at the "
        f"start; {values['seconds']:g} seconds a step; requests expected to wait more than "
        f"{1e3 * values['max_wait']:g} ms are refused.\n",
        f"Good are right answers within {1e3 * TARGET:g} ms from when the request was due. At least {SHARE:.0%} of the "
        f"requests get one {best}. Then twice that rate, and half of it. Wrong or lost: "
        f"{sum(step['failed'] + step['wrong'] for _, step in steps)} of {n}.\n",
        "| step | requests/s | good/s | good | refused | median, ms | 99%, ms | 99% of refusals, ms | batch | "
        "client late, 99%, ms | wrong or lost |",
        "| --- " + "| ---: " * 10 + "|",
        *(_row(name, step) for name, step in steps),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=DATASETS, default="ml-1m")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle of that data; else a model is fitted")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each step (default: %(default)s)")
    parser.add_argument("--max-wait", type=float, default=0.006, help="of the service (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    load, data = os.getloadavg()[0], fetch_movielens(options.dataset.removeprefix("ml-"), download=False)
    with tempfile.TemporaryDirectory() as folder:
        path = options.bundle
        if path is None:
            path = Path(folder) / "bundle"
            features = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
            model = ContrastiveRecommender(random_state=0).fit(data.interactions[["user_id", "item_id"]], **features)
            model.export(path, metadata=data.items)
        bundle = load_bundle(path)
        asked = asked_of(bundle, data, N_REQUESTS)
        with served(path.absolute(), options.max_wait) as url:
            found = asyncio.run(measure(url, asked, options.seconds))
    values = {
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "model": bundle.model,
            "n_items": bundle.n_items,
            "n_users": bundle.n_users,
        },
        "dataset": options.dataset,
        "load": load,
        "seconds": options.seconds,
        "max_wait": options.max_wait,
        "found": found,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"serving-{options.dataset}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()
