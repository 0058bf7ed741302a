"""A child process for the supervisor's tests: `python support_children.py <behaviour>`.

It writes its pid to ``$K2_TEST_LOG`` (one line per start), says that it is ready, and behaves.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from flight_server.lifeline import say_ready, watch


def main(behaviour: str) -> None:
    watch().wait()
    with Path(os.environ["K2_TEST_LOG"]).open("a") as log:
        log.write(f"{os.getpid()}\n")
    if behaviour.startswith("exit-"):
        sys.exit(int(behaviour.removeprefix("exit-")))
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say_ready(behaviour=behaviour)
    if behaviour == "ready-then-exit":
        sys.exit(78)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
