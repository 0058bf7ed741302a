"""Servers that a test may kill and start again: three Kafka brokers, and single servers."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from confluent_kafka.admin import NewTopic, PartitionMetadata
from support_kafka import ADMIN_S, Broker
from support_stack import START_S, Launch, _kafka, _kafka_id, free_port

#: Brokers of a cluster; the first is the controller, too, and is not to be killed.
NODES = 3


class Daemon:
    """One server, started and killed at will; its data stay in its folder."""

    def __init__(self, launch: Launch, home: Path) -> None:
        self._launch, self._home = launch, home
        self._process: subprocess.Popen[bytes] | None = None
        for command in launch.before:
            subprocess.run(command, cwd=home, check=True, capture_output=True)

    def start(self) -> None:
        """Starts it without waiting for it."""
        with (self._home / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._launch.argv, cwd=self._home, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Returns when it accepts connections."""
        limit = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._launch.port), 1):
                return
            assert time.monotonic() < limit, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """The end of its output."""
        return (self._home / "output.log").read_text(errors="replace")[-600:]

    def kill(self) -> None:
        """Ends it without a warning; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """Ends it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None


class Cluster(Broker):
    """Three brokers, of which 2 and 3 may be killed; ``nodes`` by broker id."""

    nodes: Mapping[int, Daemon]

    def create_replicated(self, *replicas: Sequence[int], **config: str) -> str:
        """A new topic by the brokers of each partition, the preferred leader first.

        Keyword ``min_insync_replicas`` is the broker's dotted one.
        """
        topic = f"replicated{time.time_ns():x}"
        dotted = {key.replace("_", "."): value for key, value in config.items()}
        wish = NewTopic(
            topic,
            len(replicas),
            replica_assignment=[list(each) for each in replicas],
            config=dotted,
        )
        self._done(self.admin.create_topics([wish]))
        for partition, brokers in enumerate(replicas):
            for broker in brokers:
                self.wait_until_in_sync(topic, broker, partition)
        return topic

    def leader(self, topic: str, partition: int = 0) -> int:
        """The broker that leads a partition; -1: none."""
        found = self._partition(topic, partition)
        return -1 if found is None else int(found.leader)

    def in_sync(self, topic: str, partition: int = 0) -> set[int]:
        """The brokers that hold all of a partition."""
        found = self._partition(topic, partition)
        return set() if found is None else set(found.isrs)

    def _partition(self, topic: str, partition: int) -> PartitionMetadata | None:
        found = self.admin.list_topics(topic, timeout=ADMIN_S).topics[topic]
        return found.partitions.get(partition)

    def wait_until_led(self, topic: str, *, other_than: int, partition: int = 0) -> int:
        """The next leader of a partition."""
        self._become(
            lambda: self.leader(topic, partition) not in (-1, other_than),
            f"{topic}[{partition}] has another leader than {other_than}",
        )
        return self.leader(topic, partition)

    def wait_until_in_sync(self, topic: str, node: int, partition: int = 0) -> None:
        """Returns when the broker holds all of a partition."""
        self._become(
            lambda: node in self.in_sync(topic, partition),
            f"broker {node} holds all of {topic}[{partition}]",
        )

    def wait_until_left(self, topic: str, node: int, partition: int = 0) -> None:
        """Returns when the broker is no longer counted among those that hold all."""
        self._become(
            lambda: node not in self.in_sync(topic, partition),
            f"broker {node} is not counted in {topic}[{partition}]",
        )

    def _become(self, condition: Callable[[], bool], wanted: str) -> None:
        """Waits for what a broker may have to be started for first, on a machine that is busy."""
        try:
            self._wait(condition, wanted, START_S + ADMIN_S)
        except TimeoutError as error:
            said = "".join(f"\n{node}: {daemon.said()}" for node, daemon in self.nodes.items())
            raise TimeoutError(f"{error}{said}") from None


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A running cluster; its processes end with the block."""
    ports = {node: free_port() for node in range(NODES + 1)}  # 0: the controller's
    identity = _kafka_id()
    nodes = {node: _node(folder, node, ports, identity) for node in range(1, NODES + 1)}
    try:
        for daemon in nodes.values():
            daemon.start()
        for daemon in nodes.values():
            daemon.wait()
        found = Cluster(",".join(f"127.0.0.1:{ports[node]}" for node in nodes))
        object.__setattr__(found, "nodes", nodes)
        found._become(
            lambda: len(found.admin.list_topics(timeout=ADMIN_S).brokers) == NODES,
            f"{NODES} brokers are one cluster",
        )
        yield found
    finally:
        for daemon in nodes.values():
            daemon.kill()


def _node(folder: Path, node: int, ports: Mapping[int, int], identity: str) -> Daemon:
    home = folder / f"node{node}"
    home.mkdir()
    launch = _kafka(home, {})
    port, controller = ports[node], ports[0]
    config = home / "server.properties"
    settings = dict(line.split("=", 1) for line in config.read_text().splitlines())
    settings |= {
        "node.id": str(node),
        "process.roles": "broker,controller" if node == 1 else "broker",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port}"
        + (f",CONTROLLER://127.0.0.1:{controller}" if node == 1 else ""),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        # A dead broker is noticed in seconds; nothing here waits for less.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "3000",
        "unclean.leader.election.interval.ms": "1000",
    }
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    (format_,) = launch.before
    named = tuple(identity if format_[i - 1] == "-t" else word for i, word in enumerate(format_))
    return Daemon(replace(launch, port=port, before=(named,)), home)
