"""The kernel stands alone: the README's backend runs with the rest of the project absent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import flight_server.protocol

KERNEL = Path(flight_server.protocol.__file__).parent


def test_the_readmes_backend_serves_a_stock_client_without_the_rest_of_the_project(
    tmp_path: Path,
) -> None:
    """The copied folder is all there is; ``-I`` keeps the working directory and user site out."""
    shutil.copytree(KERNEL, tmp_path / "flight_server" / "protocol")
    (tmp_path / "flight_server" / "__init__.py").touch()
    (example,) = re.findall(r"```python\n(.+?)```", (KERNEL / "README.md").read_text(), re.DOTALL)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{example}
import flight_server
assert flight_server.__file__.startswith({str(tmp_path)!r})
from adbc_driver_flightsql import dbapi
with dbapi.connect(f"grpc://127.0.0.1:{{server.port}}", autocommit=True) as connection:
    with connection.cursor() as cursor:
        cursor.execute("select n from numbers")
        assert cursor.fetchall() == [(n,) for n in range(5)]
    assert connection.adbc_get_table_types() == ["BASE TABLE", "VIEW"]
server.stop()
ours = [name for name in sys.modules if name.startswith(("catalog", "flight_server"))]
assert all(name == "flight_server" or name.startswith("flight_server.protocol") for name in ours)
print("served")
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "served\n"


def test_the_smallest_backend_is_small() -> None:
    """Twenty lines, says the README's promise."""
    (example,) = re.findall(r"```python\n(.+?)```", (KERNEL / "README.md").read_text(), re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("NUMBERS"))
    assert len(lines) - start <= 20
