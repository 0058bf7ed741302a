"""Several ingests of one table, each a real process with a live folder of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from chaos.site import Layout, Process
from support_ingest import Row, World, assert_exact
from support_log import NAME, Log
from support_stack import free_port

from catalog.manifest import Manifest
from catalog.spec import LiveSpec

__all__ = ["NAME", "Node"]

KEY = "one key for all servers of a fleet"
#: Seconds of silence after which a standby takes over: longer than a busy machine starves a beat.
SILENCE_S = 2.0


class Node:
    """One machine: ``k2 ingest`` or ``k2 serve`` over the world's catalog and a log.

    Args:
        role: of ``[live]``.
        table: keys of ``[[table]]`` that are not the default.
    """

    def __init__(self, world: World, log: Log, name: str, role: str, **table: object) -> None:
        folder = world.folder / name
        folder.mkdir()
        self.name, self.log = name, log
        self.world = replace(world, live=LiveSpec(folder / "live"))
        self._process: Process | None = None
        given = {"flush_age_s": 0.5, "schema_id": 7, **table}
        keys = "\n".join(f"{key} = {value}" for key, value in given.items())
        config = folder / "k2.toml"
        config.write_text(f"""
[server]
port = {(port := free_port())}
ticket_key = "{KEY}"
[kafka]
"bootstrap.servers" = "{log.broker.bootstrap}"
[registry]
url = "file:{world.folder}/schemas"
[catalog]
uri = "{world.properties["uri"]}"
warehouse = "{world.properties["warehouse"]}"
[live]
folder = "live"
role = "{role}"
node = "{name}"
take_over_after_s = {SILENCE_S}
reload_s = 0.3
grace_s = 1
[[table]]
name = "{NAME}"
topics = ["{log.topic}"]
{keys}
""")
        self.layout = Layout(folder, log.topic, str(NAME), port, config)

    @contextmanager
    def running(self, command: str = "ingest") -> Iterator[Node]:
        """The process for the length of the block."""
        self._process = Process(self.layout, [command])
        try:
            yield self
        finally:
            if self._process.code is None:
                self.signal(signal.SIGCONT)
            self._process.end()

    @property
    def pid(self) -> int:
        """The process that ingests."""
        assert self._process is not None
        return self._process.child("ingest") or self._process.pid

    def signal(self, number: int) -> None:
        """To the process that ingests."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        assert self._process is not None
        self._process.kill()

    @property
    def manifest(self) -> Manifest | None:
        """What it has published."""
        return self.world.manifest(NAME)

    def wait(self, done: Callable[[Manifest], bool]) -> Manifest:
        """The first version it publishes that ``done`` likes."""
        return self.world.wait(NAME, done)

    def wait_for_all(self) -> Manifest:
        """Waits until everything that was written is in history, and this node knows it."""
        ends = [((self.log.topic, p), end) for p, end in enumerate(self.log.ends)]
        return self.wait(lambda m: all(m.committed.at(place) >= end for place, end in ends))

    def assert_exact(self) -> list[Row]:
        """Its newest version is an exact prefix of the log; the rows."""
        rows, manifest = self.world.answer(NAME)
        assert_exact(rows, self.log.sent, manifest.high)
        return rows
