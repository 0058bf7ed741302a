"""A child process: `python -m flight_server.child ROLE ARGUMENT…`, started at a lifeline.

Only the role's own module is loaded: how soon a killed process answers again is mostly how long its
imports take.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from flight_server.exits import ExitCode
from flight_server.lean import without_data_frames, without_huge_pages
from flight_server.lifeline import stop_on_signals, watch
from flight_server.logs import log_to_stderr

#: Role → module and function; the function takes the stop event and the arguments.
ROLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "server": ("flight_server.app", "serve_until"),
        "ingest": ("flight_server.ingest_app", "ingest_until"),
        "serve": ("flight_server.supervisor", "supervise_until"),
        "broker": ("flight_server.demo.broker", "broker_until"),
        "feed": ("flight_server.demo.feed", "feed_until"),
    }
)


def run(role: Callable[[], int]) -> int:
    """Runs a role, or a command of ours, and turns its typed end into words and an exit code."""
    try:
        return role()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `k2 sql … | head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001  # the last frame: told or shown, never lost
        from flight_server.failures import exit_code_of, is_expected  # noqa: PLC0415  # see above

        if not is_expected(error):
            traceback.print_exc()
            return ExitCode.INTERNAL
        sys.stderr.write(f"k2: {error}\n")
        return exit_code_of(error)


def main(arguments: Sequence[str]) -> int:
    """The process; its exit code."""
    turn = watch()
    without_data_frames()
    if arguments[0] == "server":
        without_huge_pages()
    log_to_stderr()
    module, function = ROLES[arguments[0]]
    role = getattr(importlib.import_module(module), function)
    turn.wait()
    return run(lambda: int(role(stop_on_signals(), *arguments[1:])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
