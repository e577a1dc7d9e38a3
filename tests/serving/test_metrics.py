"""What Prometheus is told is what happened."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from recsys.serving.metrics import Metrics
from tests.serving.clients import ask


def samples(app: FastAPI) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = ask(app, "GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def requests(found: dict[Any, float]) -> dict[tuple[str, str, str], float]:
    return {
        (labels["method"], labels["route"], labels["status"]): value
        for (name, pairs), value in found.items()
        if name == "recsys_requests_total" and (labels := dict(pairs))
    }


def test_requests_are_counted_by_route_and_status(app: FastAPI) -> None:
    ask(app, "POST", "/recommend", {"requests": [{"user": 1}, {"user": 2}, {"user": 3, "k": 4}]})
    ask(app, "POST", "/recommend", {"user": True})
    ask(app, "GET", "/items?ids=1")
    ask(app, "PUT", "/items/501", {"features": {}})
    ask(app, "PUT", "/items/502", {"features": {}})
    for path in ("/nothing", "/static/x", "/static/y", "/other/1"):
        ask(app, "GET", path)
    ask(app, "BREW", "/recommend")
    found = samples(app)
    assert requests(found) == {
        ("POST", "/recommend", "200"): 1,
        ("POST", "/recommend", "422"): 1,
        ("GET", "/items", "200"): 1,
        ("PUT", "/items/{item}", "200"): 2,
        ("GET", "unmatched", "404"): 2,
        ("GET", "/static/{name}", "404"): 2,
        ("other", "/recommend", "405"): 1,
    }
    assert found[("recsys_items", ())] == 52
    # Three users in one batch, and what was asked of an item in another.
    assert found[("recsys_batch_size_count", ())] == 2
    assert found[("recsys_batch_size_sum", ())] == 4
    assert found[("recsys_queue_depth", ())] == 0
    assert found[("recsys_request_seconds_count", (("route", "/recommend"),))] >= 2
    assert found[("recsys_shed_total", ())] == 0


def test_what_a_client_makes_up_is_no_label() -> None:
    metrics = Metrics()
    for method in ("GET", "BREW", "X" * 50):
        metrics.observe(method, "/x", 200, 0.02)
    count = metrics.registry.get_sample_value
    assert count("recsys_requests_total", {"method": "other", "route": "/x", "status": "200"}) == 2
    assert count("recsys_request_seconds_bucket", {"route": "/x", "le": "0.01"}) == 0
    assert count("recsys_request_seconds_bucket", {"route": "/x", "le": "0.025"}) == 3
