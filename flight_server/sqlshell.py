"""The interactive prompt of `k2 sql`: history, completion, colours where there is a terminal."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from flight_server.rowformat import Format, write_rows
from flight_server.sqlclient import (
    Client,
    ClientError,
    OutputRefused,
    StatementFailed,
    is_complete,
    split_statements,
)

HELP = """\
A statement ends with a semicolon.
  \\d            tables             \\f FORMAT  table, csv or json
  \\d NAME       a table's columns  \\h         this help
  \\q            leave (or Ctrl-D)
"""
_WORD = re.compile(r"[\w.$]+")
#: The words offered beside the names of the server.
_KEYWORDS = """
all and as asc between by case cast count cross date_bin date_trunc desc describe distinct else end
except exists explain false from full group having in inner interval intersect is join left like
limit max min not now null offset on or order over partition right rows select sum then true union
values when where window with
"""


@dataclass(frozen=True, slots=True)
class Output:
    """Where rows go, in which form, and where what is said about them goes."""

    sink: BinaryIO
    form: Format
    say: Callable[[str], None]


def open_output(file: Path) -> BinaryIO:
    """The file of ``--output``, emptied.

    Raises:
        OutputRefused: it cannot be written.
    """
    try:
        return file.open("wb")
    except OSError as error:
        raise OutputRefused(f"{file} cannot be written ({error.strerror}): see --output") from error


def history_file() -> Path:
    """Where the prompt remembers: ``$XDG_STATE_HOME/k2/history``."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "k2" / "history"


class NameCompleter(Completer):
    """Offers keywords and the server's names; names are read again by ``refresh``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Reads the names; a server that does not tell them leaves completion with keywords."""
        try:
            self._names = self._client.names()
        except StatementFailed:
            self._names = ()

    def get_completions(self, document: Document, _event: CompleteEvent) -> Iterable[Completion]:
        """Whatever starts with the word before the cursor, dots and ``$`` included."""
        word = document.get_word_before_cursor(pattern=_WORD)
        if not word:
            return
        for name in (*self._names, *_KEYWORDS.split()):
            if name.lower().startswith(word.lower()):
                yield Completion(_quoted(name), start_position=-len(word))


class Shell:
    """Reads statements until the end of the input."""

    def __init__(self, client: Client, output: Output) -> None:
        self._client = client
        self._output = output

    def run(self) -> None:
        """The prompt; Ctrl-C clears the line, Ctrl-D leaves."""
        completer = NameCompleter(self._client)
        completer.refresh()
        session = self._session(completer)
        self._output.say("k2 sql: \\h for help, \\q to leave")
        while True:
            try:
                text = session.prompt("k2> ").strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text in {"\\q", "exit", "quit"}:
                return
            for statement in self._statements(text):
                self._run_one(statement)

    def _session(self, completer: NameCompleter) -> PromptSession[str]:
        file = history_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        return PromptSession(
            history=FileHistory(str(file)),
            completer=completer,
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory(),
            lexer=PygmentsLexer(SqlLexer),
            multiline=Condition(lambda: True),
            key_bindings=_enter_runs_what_is_complete(),
            prompt_continuation="  > ",
        )

    def _statements(self, text: str) -> Iterator[str]:
        command, _, argument = text.partition(" ")
        if not text.startswith("\\"):
            yield from split_statements(text)
        elif command == "\\d" and argument:
            yield f"describe {argument.rstrip(';')}"
        elif command == "\\d":
            yield (
                "select table_schema, table_name, table_type from information_schema.tables "
                "where table_schema <> 'information_schema' order by 1, 2"
            )
        elif command == "\\f" and argument in {"table", "csv", "json"}:
            form: Format = argument  # type: ignore[assignment]  # one of the three
            self._output = replace(self._output, form=form)
        else:
            self._output.say(HELP)

    def _run_one(self, statement: str) -> None:
        try:
            run_statement(self._client, statement, (), self._output)
        except ClientError as error:
            self._output.say(f"error: {error}")
        except KeyboardInterrupt:
            self._output.say("cancelled")


def run_statement(client: Client, sql: str, parameters: Sequence[object], output: Output) -> int:
    """Runs a statement, writes its rows, says rows and time; returns the rows.

    Raises:
        ClientError: the statement failed.
    """
    began = time.monotonic()
    with client.query(sql, parameters) as result:
        rows = write_rows(result.schema, result.batches, output.sink, output.form)
        output.sink.flush()
    elapsed_ms = (time.monotonic() - began) * 1000
    output.say(f"{rows:,} {'row' if rows == 1 else 'rows'} in {elapsed_ms:,.0f} ms")
    return rows


def say_on_stderr(text: str) -> None:
    """What is not a result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _enter_runs_what_is_complete() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        if not text or text.startswith("\\") or text in {"exit", "quit"} or is_complete(text):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return bindings


def _quoted(name: str) -> str:
    if "$" not in name:
        return name
    *schema, table = name.split(".")
    return ".".join([*schema, f'"{table}"'])
