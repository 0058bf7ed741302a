"""What stands between the system and its surroundings: proxies, and a storm that breaks them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from support_kafka import Broker
from support_proxy import GIVEN_UP, Armed, HttpProxy, TcpProxy, draw

from chaos.site import SQLITE, Home

#: Longest delay or hole, in seconds: long for a call, short for a campaign.
LONGEST_S = 1.2
#: Seconds for which a process is stopped, at most.
STOPPED_S = 1.0
#: What may happen on each wire, with its weight. Data files are many requests, commits are few.
KINDS: Mapping[str, Mapping[str, int]] = {
    "kafka": {"reset": 5, "lose": 3, "delay": 8, "hole": 2},
    "flight": {"reset": 5, "lose": 3, "delay": 8, "hole": 2},
    "catalog": {
        "reset": 3,
        "lose": 4,
        "delay": 3,
        "hole": 1,
        "twice": 3,
        "cut": 2,
        "answer 409": 2,
        "answer 500": 2,
        "answer 502": 2,
        "answer 503": 2,
        "answer 504": 2,
        "refuse 409": 1,
        "refuse 500": 1,
        "refuse 503": 2,
    },
    "store": {
        "reset": 3,
        "lose": 3,
        "delay": 4,
        "hole": 1,
        "twice": 2,
        "cut": 3,
        "cut_upload": 3,
        "answer 500": 2,
        "refuse 500": 2,
        "refuse 503": 3,
    },
}
#: How often each wire is struck: a commit is a dozen requests, and must be able to get through.
WEIGHTS: Mapping[str, int] = {"kafka": 2, "flight": 2, "catalog": 1, "store": 1}
#: Of the processes under test: how often one is stopped (SIGSTOP) in place of a fault on a wire.
STOPS = 0.04


@dataclass(frozen=True)
class Surroundings:
    """The real servers of a campaign.

    Attributes:
        broker: the broker, directly.
        kafka: its way in for a proxy: the port behind, and the port that it advertises.
        rest: properties of a REST catalog over an S3 store; None: SQLite and files.
    """

    broker: Broker
    kafka: tuple[int, int]
    rest: Mapping[str, str] | None = None


class Wires:
    """One leg's proxies.

    Attributes:
        tcp: kafka and flight; http: catalog and store, where they are servers.
        home: where the table lives, as the system under test sees it.
    """

    def __init__(self, around: Surroundings) -> None:
        inner, outer = around.kafka
        self.rules = {name: Armed() for name in KINDS}
        self.tcp = {
            "kafka": TcpProxy(inner, self.rules["kafka"], port=outer),
        }
        self.http: dict[str, HttpProxy] = {}
        self.home = SQLITE
        if around.rest is not None:
            for name, key in (("catalog", "uri"), ("store", "s3.endpoint")):
                port = urlsplit(around.rest[key]).port or 0
                self.http[name] = HttpProxy(port, self.rules[name])
            through = {"uri": self.http["catalog"].uri, "s3.endpoint": self.http["store"].uri}
            self.home = Home({**around.rest, **through}, f"chaos_{uuid.uuid4().hex[:12]}")

    def open_flight(self, port: int) -> None:
        """Stands before the Flight server, too, which listens on ``port`` sooner or later."""
        self.tcp["flight"] = TcpProxy(port, self.rules["flight"])

    @property
    def bootstrap(self) -> str:
        """The broker, through its proxy."""
        return f"127.0.0.1:{self.tcp['kafka'].port}"

    @property
    def flight(self) -> str:
        """The Flight server, through its proxy."""
        return f"grpc://127.0.0.1:{self.tcp['flight'].port}"

    @property
    def names(self) -> list[str]:
        """The wires that this leg has."""
        return [*self.tcp, *self.http]

    @property
    def hits(self) -> Counter[str]:
        """Faults that met traffic, per wire and kind."""
        return Counter(
            {
                f"{name}: {kind}": count
                for name, proxy in {**self.tcp, **self.http}.items()
                for kind, count in list(proxy.hits.items())
                if kind != GIVEN_UP
            }
        )

    def calm(self) -> None:
        """Forgets what is armed."""
        for rule in self.rules.values():
            rule.clear()

    def close(self) -> None:
        """Ends every connection."""
        for proxy in (*self.tcp.values(), *self.http.values()):
            proxy.close()


class Storm:
    """Draws faults at a drawn pace and arms them, on a thread of its own.

    Attributes:
        stopped: processes that were stopped for a moment, per role.
    """

    def __init__(
        self,
        wires: Wires,
        chance: random.Random,
        calm_s: float,
        pid_of: Callable[[str], int | None],
    ) -> None:
        """``calm_s`` is the mean time between two faults; 0: no storm."""
        self.stopped: Counter[str] = Counter()
        self._wires, self._chance, self._calm_s, self._pid_of = wires, chance, calm_s, pid_of
        self._blows, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="storm")
        if calm_s:
            self._thread.start()

    def blow(self) -> None:
        """From now on; the system is up."""
        self._blows.set()

    def hold(self) -> None:
        """Not any more, until :meth:`blow`."""
        self._blows.clear()
        self._wires.calm()

    @property
    def count(self) -> int:
        """Faults that took effect."""
        return sum(self.stopped.values()) + sum(self._wires.hits.values())

    def end(self) -> None:
        """For good."""
        self.hold()
        self._over.set()
        self._blows.set()
        if self._calm_s:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._over.wait(self._chance.expovariate(1 / self._calm_s))
            self._blows.wait()
            if not self._over.is_set():
                self._strike()

    def _strike(self) -> None:
        if self._chance.random() < STOPS:
            self._stop(self._chance.choice(("server", "ingest")))
            return
        names = self._wires.names
        (name,) = self._chance.choices(names, [WEIGHTS[name] for name in names])
        fault = draw(self._chance, dict(KINDS[name]), LONGEST_S)
        if not self._wires.rules[name].waiting:
            self._wires.rules[name].arm(fault)

    def _stop(self, role: str) -> None:
        pid = self._pid_of(role)
        if pid is None:
            return
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._chance.uniform(0.1, STOPPED_S))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        self.stopped[role] += 1
