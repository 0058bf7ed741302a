"""A small house in this process: embedded broker, synthetic market, ingest on a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.ingest import run_ingest
from flight_server.config import load
from flight_server.demo.broker import EmbeddedBroker
from flight_server.demo.feed import Feed, FeedSpec, publish_schemas
from flight_server.ingest_app import build_sources

START_US = 1_760_000_000_000_000
TOPIC = "market.equities.trades.house"
#: The ingest flushes at so many rows, and never because of age: tests know what is where.
FLUSH_ROWS = 1000


@dataclass(frozen=True)
class House:
    """A running house; ``config`` opens it."""

    config: Path
    bootstrap: str

    def feed(self, count: int, seed: int = 1) -> None:
        """Sends so many trades and waits until they are acknowledged."""
        feed = Feed(
            FeedSpec(
                properties={"bootstrap.servers": self.bootstrap},
                topics={"trades": TOPIC},
                schema_ids={"trades": 1},
                rate=0,
                count=count,
                seed=seed,
                start_us=START_US,
                run=f"h{seed}",
            )
        )
        try:
            report = feed.run(threading.Event())
        finally:
            feed.close()
        assert (report.failed, sum(report.delivered.values())) == (0, count)


def write_config(folder: Path, bootstrap: str) -> Path:
    """The configuration and the registry's folder."""
    publish_schemas(f"file:{folder / 'schemas'}", {"trades": TOPIC})
    config = folder / "k2.toml"
    config.write_text(f"""
[server]
port = 0
[kafka]
bootstrap.servers = "{bootstrap}"
[catalog]
uri = "sqlite:///catalog.db"
warehouse = "warehouse"
[live]
folder = "live"
[[table]]
name = "market_data.trades"
topics = ["{TOPIC}"]
sort = ["symbol", "timestamp"]
partition = ["day(timestamp)"]
flush_rows = {FLUSH_ROWS}
flush_age_s = 1000000
""")
    return config


@contextmanager
def living(folder: Path, first: int) -> Iterator[House]:
    """A house into which ``first`` trades were fed before its ingest began."""
    with EmbeddedBroker() as broker, ExitStack() as stack:
        house = House(write_config(folder, broker.bootstrap), broker.bootstrap)
        house.feed(first)
        settings = load(house.config, {})
        stop, opened = threading.Event(), threading.Event()
        sources = build_sources(settings, stack)
        ingest = threading.Thread(
            target=run_ingest, args=(settings.table_specs(), sources, stop, opened.set)
        )
        ingest.start()
        try:
            opened.wait()
            yield house
        finally:
            stop.set()
            ingest.join()
