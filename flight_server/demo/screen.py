"""What the demo shows: how to connect, three queries, the live line."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from flight_server.demo.folder import Run
from flight_server.demo.tally import Split
from flight_server.rowformat import write_rows
from flight_server.sqlclient import Client

#: Seconds between two lines where the output is no terminal and lines cannot be replaced.
_PLAIN_S = 5.0

Show = Callable[[int, Split, float | None], None]


class Screen:
    """Everything goes to stdout, or nothing where stdout is for one JSON object."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(quiet=quiet, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False)

    def connect_hints(self, uri: str, config: Path) -> None:
        """How to ask the running server."""
        host_port = uri.removeprefix("grpc://")
        self._console.print("[bold]K2 Flight is running.[/bold] Connect with")
        self.note(
            f"  k2 sql --server {host_port}\n"
            f'  ADBC    adbc_driver_flightsql.dbapi.connect("{uri}")\n'
            f"  JDBC    jdbc:arrow-flight-sql://{host_port}?useEncryption=false\n"
            f"  Python  flight_server.open({str(config)!r})\n"
        )

    def query(self, client: Client, title: str, sql: str) -> None:
        """Runs and shows one statement.

        Raises:
            ClientError: it failed; nothing was shown.
        """
        began = time.monotonic()
        out = io.BytesIO()
        with client.query(sql) as result:
            write_rows(result.schema, result.batches, out, "table")
        elapsed_ms = (time.monotonic() - began) * 1000
        self._console.print(f"[bold]{title}[/bold] ({elapsed_ms:.0f} ms)")
        self.note(f"  {' '.join(sql.split())}\n\n{out.getvalue().decode()}")

    @contextlib.contextmanager
    def line(self) -> Iterator[Show]:
        """The live line: replaced on a terminal, now and then a new one elsewhere."""
        if not self._console.is_terminal:
            yield self._plain_line()
            return
        self.note("Ctrl-C ends the demo.")
        with Live(console=self._console, refresh_per_second=4) as live:
            yield lambda produced, split, age_ms: live.update(Text(_line(produced, split, age_ms)))

    def _plain_line(self) -> Show:
        shown_at = float("-inf")

        def show(produced: int, split: Split, age_ms: float | None) -> None:
            nonlocal shown_at
            if time.monotonic() - shown_at >= _PLAIN_S:
                shown_at = time.monotonic()
                self.note(_line(produced, split, age_ms))

        return show

    def finish(self, summary: Mapping[str, object]) -> None:
        """The exact counts at the end."""
        self._console.print("\n[bold]All of it, counted from outside:[/bold]")
        self.note("\n".join(f"  {name:<17} {value}" for name, value in summary.items()))


def _line(produced: int, split: Split, age_ms: float | None) -> str:
    age = "-" if age_ms is None else f"{age_ms:.0f} ms"
    return (
        f"produced {produced:,} | live {split.live:,} | history {split.history:,} | "
        f"duplicates {split.surplus} | gaps {split.missing} | freshness {age}"
    )


def statements(run: Run) -> tuple[tuple[str, str], ...]:
    """Title and SQL of the three queries."""
    trades = run.table("trades")
    return (
        (
            "How many rows, and where they are",
            f"""select (select count(*) from {trades}) as rows,
                       (select count(*) from {run.part("trades", "runs")}) as history,
                       (select count(*) from {run.part("trades", "live")}) as live""",
        ),
        (
            "VWAP by symbol, over history and the live tail",
            f"""select symbol, count(*) as trades,
                       round(sum(cast(price as double) * cast(quantity as double))
                             / sum(cast(quantity as double)), 4) as vwap
                from {trades} group by symbol order by trades desc, symbol limit 5""",
        ),
        (
            "The newest trades",
            f"""select symbol, side, price, quantity, timestamp, _partition, _offset
                from {trades} order by _kafka_timestamp desc, _offset desc limit 5""",
        ),
    )
