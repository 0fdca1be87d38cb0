"""Define `dims exporter`: metrics for Prometheus."""

from __future__ import annotations

import threading

import click

from dims_worker import local
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.errors import BrokerUnreachable, DatabaseUnreachable, ServiceError, UsageError

PORT = 9599


@click.command()
@examples("dims exporter", "dims exporter --address 0.0.0.0 --port 9600    for other hosts")
@click.option("--address", default="127.0.0.1", show_default=True, help="Listen here, without a password.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free port.")
@pass_session
def exporter(session: Session, address: str, port: int) -> None:
    """Serve metrics for Prometheus at /metrics until you press Ctrl-C."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server

        from dims_worker.reports.prometheus import PrometheusCollector
    except ImportError:
        raise UsageError("prometheus-client is not installed: pip install 'dims-worker[exporter]'") from None
    config, servers = session.config, local.running(session.config.home)
    database = config.database_url or (servers.database_url if servers else None)
    broker = config.broker_url or (servers.broker_url if servers else None)
    if database is None:
        raise DatabaseUnreachable
    if broker is None:
        raise BrokerUnreachable
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(config, database, broker))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ServiceError(f"cannot listen on {address}:{port}: {error.strerror or error}. Choose a --port.") from None
    session.err.print(f"serving metrics at http://{address}:{server.server_port}/metrics", soft_wrap=True)
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        thread.join()
