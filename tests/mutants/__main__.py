"""``make mutants``: applies each mutant to a copy of the tree and runs the tests that must fail.

Exit code 1 if one survives, if an entry no longer fits the code, or if a named test fails as the
code is. A mutant counts as caught when a named test fails by itself; an error while tests are
collected or set up is none.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from mutants.plan import ROOT, Mutant, mutants

#: Longest run of one mutant's tests, in seconds; one that runs on has not been caught.
TIMEOUT_S = 180
_COPIED = ("catalog", "flight_server", "tests", "docs", "pyproject.toml", "README.md")
#: A failure whose message begins so is a broken mutant, not a caught one.
_BROKEN = ("NameError", "SyntaxError", "IndentationError", "ImportError")


class Copy:
    """A copy of the tree in which tests run, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".stack", "node_modules")
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy(source, folder / name)

    def failures(self, tests: Sequence[str]) -> list[str] | None:
        """Messages of the tests that failed by themselves, up to the first; None: no verdict.

        An empty list: they passed.
        """
        report = self.root / "report.xml"
        report.unlink(missing_ok=True)
        paths = f"{self.root}{os.pathsep}{self.root / 'tests'}"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line",
             f"--junitxml={report}", *(f"tests/{test}" for test in tests)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1) or not report.exists():
            return None
        cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest has just written it
        found = [case.find("failure") for case in cases]
        messages = [one.get("message", "") for one in found if one is not None]
        return None if done.returncode == 1 and not messages else messages


def verdict(copy: Copy, mutant: Mutant) -> str:
    """What became of it: caught, or why not."""
    kept = mutant.apply(copy.root)
    try:
        messages = copy.failures(mutant.tests)
    except subprocess.TimeoutExpired:
        return "SURVIVED: its tests run on"
    finally:
        (copy.root / mutant.file).write_text(kept)
    if messages is None:
        return "NO VERDICT: the tests could not be run"
    if not messages:
        return "SURVIVED"
    return "caught" if not messages[0].startswith(_BROKEN) else f"BROKEN: {messages[0][:80]}"


def main() -> int:
    """Runs the mutants whose names hold the given words; all without any."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=…", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name or file holds one")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    flags = parser.parse_args()
    chosen = [
        one for one in mutants()
        if not flags.words or any(word in f"{one.file} {one.name}" for word in flags.words)
    ]  # fmt: skip
    if stale := [f"{one.name}: {fault}" for one in chosen if (fault := one.fault())]:
        sys.stdout.write("stale entries:\n" + "\n".join(stale) + "\n")
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="k2-mutants-") as folder:
        copies = [Copy(Path(folder) / str(n)) for n in range(flags.jobs)]
        baseline = copies[0].failures(sorted({test for one in chosen for test in one.tests}))
        if baseline != []:
            sys.stdout.write(f"without any mutant the tests fail: {baseline}\n")
            return 1
        verdicts = _all(copies, chosen)
    bad = [one for one, found in verdicts if found != "caught"]
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(verdicts) - len(bad)} of {len(verdicts)} caught, {seconds:.0f} s\n")
    return 1 if bad else 0


def _all(copies: Sequence[Copy], chosen: Sequence[Mutant]) -> list[tuple[Mutant, str]]:
    left: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for one in chosen:
        left.put(one)
    verdicts: list[tuple[Mutant, str]] = []

    def work(copy: Copy) -> None:
        while True:
            try:
                mutant = left.get_nowait()
            except queue.Empty:
                return
            found = verdict(copy, mutant)
            verdicts.append((mutant, found))
            rules = ",".join(map(str, mutant.rules)) or "-"
            sys.stdout.write(f"{found:<10} {rules:<6} {mutant.file:<36} {mutant.name}\n")
            sys.stdout.flush()

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
