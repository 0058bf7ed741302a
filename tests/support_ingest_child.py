"""An ingest as a process of its own, to be killed: ``python support_ingest_child.py JSON``."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from support_ingest import World

from catalog.ingest import run_ingest
from catalog.spec import LiveSpec, TableName, TableSpec


def main() -> None:
    """Runs until SIGTERM or a kill point."""
    given = json.loads(sys.argv[1])
    live = LiveSpec(Path(given["folder"]) / "live", grace_s=0.2, reload_s=0.2)
    world = World(Path(given["folder"]), given["kafka"], live)
    spec = TableSpec(
        TableName.parse(given["table"]),
        (given["topic"],),
        schema_id=7,
        flush_rows=given.get("flush_rows", 100),
        flush_bytes=given.get("flush_bytes", 512 * 1024**2),
        flush_age_s=given.get("flush_age_s", 0.5),
        **given.get("spec", {}),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_ingest([spec], world.sources(), stop)


if __name__ == "__main__":
    main()
