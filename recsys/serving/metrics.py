"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Metrics:
    """Counts of a service, in a registry of its own.

    Attributes
    ----------
    registry : CollectorRegistry

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.observe("POST", "/recommend", 200, 0.004)
    >>> metrics.registry.get_sample_value(
    ...     "recsys_requests_total", {"method": "POST", "route": "/recommend", "status": "200"}
    ... )
    1.0
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "recsys_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "recsys_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "recsys_batch_size", "Questions that were answered together.", buckets=_SIZES, registry=self.registry
        )
        self.depth = Gauge("recsys_queue_depth", "Questions waiting or being answered.", registry=self.registry)
        self.shed = Counter("recsys_shed", "Requests refused because they would wait too long.", registry=self.registry)
        self.swaps = Counter(
            "recsys_bundle_swaps", "Bundles that were loaded, or failed to be.", ["outcome"], registry=self.registry
        )
        self.items = Gauge("recsys_items", "Items that can be recommended.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is a pattern of the application's, not what a client wrote."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def to_text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)
