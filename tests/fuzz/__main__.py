"""``make fuzz``: each target in a process of its own, guided by coverage, for so many seconds.

A failing input is kept in tests/corpus, where an ordinary test runs it from then on.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
#: One input may take so long; the longest sound one takes milliseconds.
_INPUT_S = 20
_MEMORY_MB = 3000
#: First argument of a target's own process; libFuzzer's arguments follow.
_HERE = "--here"


def main() -> int:
    """Runs the targets."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=30, help="per target")
    flags = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        _say("atheris has no wheel for this machine: only the generated tests run")
        return 0
    from fuzz.targets import TARGETS  # noqa: PLC0415 - the targets' processes import them traced

    failed = [name for name in flags.targets or TARGETS if not _run(name, flags.seconds)]
    _say(f"failed: {', '.join(failed)}" if failed else "no target failed")
    return 1 if failed else 0


def _run(target: str, seconds: int) -> bool:
    """One target's process; whether it found nothing."""
    with tempfile.TemporaryDirectory() as found:
        command = [sys.executable, "-m", "fuzz", _HERE, target]
        command += [f"-max_total_time={seconds}", f"-timeout={_INPUT_S}", "-print_final_stats=1"]
        command += [f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={CORPUS / target}/"]
        command += ["-max_len=4096", found, str(CORPUS / target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        printed = done.stdout + done.stderr
        new = len(list(Path(found).iterdir()))
    sound = done.returncode == 0 and executions(printed) > 0
    line = f"{target:>12}: {executions(printed):>10,} executions, {new:>5} new paths"
    _say(line if sound else f"{line}  FAILED\n{printed[-4000:]}")
    return sound


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def executions(printed: str) -> int:
    """How many inputs a target was run with, by libFuzzer's statistics."""
    found = re.search(r"number_of_executed_units: (\d+)", printed)
    return int(found[1]) if found else 0


def _fuzz_here(target: str, *arguments: str) -> int:
    import atheris  # noqa: PLC0415 - where it has no wheel the rest runs without it

    with atheris.instrument_imports(include=["flight_server", "catalog"]):
        from fuzz.targets import TARGETS  # noqa: PLC0415 - traced
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(_fuzz_here(*sys.argv[2:]) if sys.argv[1:2] == [_HERE] else main())
