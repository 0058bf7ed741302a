"""Exit codes of `k2`, after BSD's sysexits where one fits."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ended with; docs/cli.md lists them."""

    OK = 0
    #: A statement was refused or failed; a check found something wrong.
    FAILED = 1
    #: Wrong arguments.
    USAGE = 2
    #: `k2 verify` found nothing wrong, and could not prove everything.
    UNPROVED = 3
    #: A broker, registry, catalog or server cannot be reached.
    UNAVAILABLE = 69
    #: A defect of ours.
    INTERNAL = 70
    #: The configuration, a declared table or an installed version is wrong.
    CONFIG = 78
    #: Ended by Ctrl-C.
    INTERRUPTED = 130


#: Each code with its meaning, for --help and docs/cli.md.
MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "a statement failed, or a check found something wrong",
    ExitCode.USAGE: "wrong arguments",
    ExitCode.UNPROVED: "nothing wrong was found, but not everything could be checked",
    ExitCode.UNAVAILABLE: "a broker, registry, catalog or server cannot be reached",
    ExitCode.INTERNAL: "a defect of K2 Flight",
    ExitCode.CONFIG: "wrong configuration, table declaration or installed version",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}
