"""What a server says of itself at /metrics, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ServerMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.connections = Gauge("ebt_connections", "Clients connected.", registry=self._registry)
        self.refused = Counter("ebt_refused_connections", "Connections refused, by reason.", ["reason"], registry=self._registry)
        self.requests = Counter("ebt_requests", "Requests answered, by kind and outcome.", ["kind", "outcome"], registry=self._registry)
        self.waiting = Gauge("ebt_waiting", "Requests that wait for the policy.", registry=self._registry)
        self.seconds = Histogram(
            "ebt_request_seconds", "From a request's last byte to its answer.", ["kind"], buckets=_SECONDS, registry=self._registry
        )
        self.queue = Histogram("ebt_queue_seconds", "Waiting for the policy.", buckets=_SECONDS, registry=self._registry)
        self.batch = Histogram("ebt_batch_size", "Requests answered together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self._registry)

    def text(self) -> str:
        return generate_latest(self._registry).decode()
