"""A child process: `python -m flight_server.child ROLE ARGUMENT…`, started at a lifeline.

The roles import what they need only when they are chosen: how soon a killed server answers again is
mostly how long its imports take.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from flight_server.exits import ExitCode
from flight_server.lean import without_pandas
from flight_server.lifeline import stop_on_signals, watch


def _server(arguments: Sequence[str]) -> int:
    from flight_server.app import serve_until  # noqa: PLC0415  # see the module's text

    return serve_until(stop_on_signals(), *arguments)


def _ingest(arguments: Sequence[str]) -> int:
    from flight_server.ingest_app import ingest_until  # noqa: PLC0415  # see the module's text

    return ingest_until(stop_on_signals(), *arguments)


def _serve(arguments: Sequence[str]) -> int:
    from flight_server.supervisor import child_specs, serve  # noqa: PLC0415  # see the module's text

    return serve(child_specs(*arguments))


def _broker(_arguments: Sequence[str]) -> int:
    from flight_server.demo.broker import broker_until  # noqa: PLC0415  # see the module's text

    return broker_until(stop_on_signals())


def _feed(arguments: Sequence[str]) -> int:
    from flight_server.demo.feed import feed_until  # noqa: PLC0415  # see the module's text

    return feed_until(stop_on_signals(), *arguments)


ROLES: Mapping[str, Callable[[Sequence[str]], int]] = MappingProxyType(
    {"server": _server, "ingest": _ingest, "serve": _serve, "broker": _broker, "feed": _feed}
)


def run(role: Callable[[], int]) -> int:
    """Runs a role, or a command of ours, and turns its typed end into words and an exit code."""
    try:
        return role()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last frame: told or shown, never lost
        from flight_server.failures import exit_code_of, is_expected  # noqa: PLC0415  # see above

        if not is_expected(error):
            traceback.print_exc()
            return ExitCode.INTERNAL
        sys.stderr.write(f"k2: {error}\n")
        return exit_code_of(error)


def log_to_stderr(level: str = "INFO") -> None:
    """One line per event, with the time in UTC."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )


def main(arguments: Sequence[str]) -> int:
    """The process; its exit code."""
    watch()
    without_pandas()
    log_to_stderr()
    return run(lambda: ROLES[arguments[0]](arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
