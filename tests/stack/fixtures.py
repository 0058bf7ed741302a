"""Writes tests/fixtures/iceberg/ anew with the real engines: ``make fixtures ARGS="flink trino"``.

Each engine writes into a bucket of the test store, so no path of this machine stands in a file: the
bucket's folder is the fixture, byte for byte, and tests lay it into a bucket of the same name.
Needs a JDK (17 or newer) and Maven; Trino, half a gigabyte of it, runs on the Java of the tests.
Snapshot ids, names of files and times differ from run to run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trino_tables
from support_foreign import BUCKET, FIXTURES
from support_stack import POMS, S3_KEY, S3_SECRET, Stack, jars

#: Engine → the names under which its fixtures lie and its tables are registered.
ENGINES = ("spark", "flink", "trino")
#: Packages of the JDK that Spark and Flink look into.
_OPENED = (
    *(f"java.{name}" for name in ("io", "lang", "lang.invoke", "lang.reflect", "net", "nio")),
    *(f"java.util{name}" for name in ("", ".concurrent", ".concurrent.atomic")),
    *("sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
)


def write(engine: str, endpoint: str, bucket: Path, scratch: Path) -> None:
    """One engine's tables into the bucket, its answers beside them."""
    lib, classes, answers = jars(engine), scratch / "classes", bucket / engine / "answers"
    answers.mkdir(parents=True)
    sources = [POMS / engine / "Fixtures.java", POMS / "fixtures" / "Answers.java"]
    compiler = ["javac", "-nowarn", "-cp", f"{lib}/*", "-d", str(classes), *map(str, sources)]
    subprocess.run(compiler, check=True)
    opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
    arguments = [
        endpoint,
        S3_KEY,
        S3_SECRET,
        f"s3://{BUCKET}/{engine}",
        POMS / engine / "tables.sql",
    ]
    path = f"{classes}:{lib}/*"
    command = ["java", "-Xmx1g", "-XX:TieredStopAtLevel=1", *opened, "-cp", path, "Fixtures"]
    with (scratch / "log").open("w") as log:
        done = subprocess.run(
            [*command, *arguments, str(answers), str(scratch), str(bucket)],
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode != 0:
        log = (scratch / "log").read_text()
        sys.exit(f"{engine} failed:\n{log[log.rfind('Exception in thread') :][:3000]}")


def main(engines: list[str]) -> None:
    """Replaces the fixtures of the engines."""
    with Stack.own() as stack, tempfile.TemporaryDirectory() as scratch:
        s3 = stack.state("s3", lenient="true")  # Trino says with each request who pays for it
        bucket = Path(s3["folder"]) / BUCKET
        bucket.mkdir()
        for engine in engines:
            (Path(scratch) / engine).mkdir()
            if engine == trino_tables.ENGINE:
                trino_tables.write(stack, bucket, Path(scratch) / engine)
            else:
                write(engine, s3["endpoint"], bucket, Path(scratch) / engine)
            shutil.rmtree(FIXTURES / engine, ignore_errors=True)
            shutil.copytree(bucket / engine, FIXTURES / engine)
            drop_old_metadata(FIXTURES / engine)


def drop_old_metadata(folder: Path) -> None:
    """Keeps each table's newest metadata file only: the others are most of the bytes."""
    for answer in folder.glob("answers/*.json"):
        newest = json.loads(answer.read_text())["metadata"].rpartition("/")[2]
        for path in folder.glob(f"*/{answer.stem}/metadata/*.metadata.json"):
            if path.name != newest:
                path.unlink()


if __name__ == "__main__":
    main(sys.argv[1:] or list(ENGINES))
