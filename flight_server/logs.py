"""Log lines on standard error: one per event, with the time."""

from __future__ import annotations

import logging
import sys

#: Loggers of ours; libraries speak from WARNING on only.
_OURS = ("k2", "catalog", "flight_server")


def log_to_stderr(level: str = "INFO") -> None:
    """Starts to log, or changes the level."""
    logging.basicConfig(
        level="WARNING",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
