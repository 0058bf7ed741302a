"""SET, USE, SHOW and RESET in every sensible spelling, and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_server.protocol.errors import InvalidArgument, SyntaxRefused, Unimplemented
from flight_server.sqlsession import (
    ResetAll,
    SessionStatement,
    SetOption,
    ShowOptions,
    UseSchema,
    is_session_statement,
    read_session,
)

ZURICH = SetOption("time_zone", "Europe/Zurich")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SET time_zone = 'Europe/Zurich'", ZURICH),
        ("set TIME_ZONE to 'Europe/Zurich';", ZURICH),
        ("set session time_zone = 'Europe/Zurich'", ZURICH),
        ("SET TIME ZONE 'Europe/Zurich'", ZURICH),
        ("SET TIME ZONE = 'Europe/Zurich'", ZURICH),
        ('SET TimeZone TO "Europe/Zurich"', ZURICH),
        ("set time zone UTC", SetOption("time_zone", "UTC")),
        ("set time zone default", SetOption("time_zone", None)),
        ("set time zone local", SetOption("time_zone", None)),
        ("SET SCHEMA 'Market'", SetOption("schema", "Market")),
        ("set schema = Market", SetOption("schema", "market")),
        ('set schema = "Market"', SetOption("schema", "Market")),
        ("set schema to 'it''s'", SetOption("schema", "it's")),
        ("set catalog lake", SetOption("catalog", "lake")),
        ("set statement_timeout = 5", SetOption("statement_timeout", 5)),
        ("set statement_timeout = 2.5", SetOption("statement_timeout", 2.5)),
        ("set statement_timeout = 1e1", SetOption("statement_timeout", 10.0)),
        ("set statement_timeout = '5'", SetOption("statement_timeout", "5")),
        ("set statement_timeout = -5", SetOption("statement_timeout", -5)),
        ("set statement_timeout = default", SetOption("statement_timeout", None)),
        ("set compression = ZSTD", SetOption("compression", "ZSTD")),
        ("set datafusion.x.y = 1", SetOption("datafusion.x.y", 1)),
        ("reset time zone", SetOption("time_zone", None)),
        ("RESET schema ;;", SetOption("schema", None)),
        ("reset all", ResetAll()),
        ("use market_data", UseSchema(("market_data",))),
        ("USE Lake.Market_Data", UseSchema(("lake", "market_data"))),
        ('use schema "Market Data"', UseSchema(("Market Data",))),
        ("use database demo", UseSchema(("demo",))),
        ("use catalog lake", SetOption("catalog", "lake")),
        ("show all", ShowOptions(None)),
        ("SHOW time_zone", ShowOptions("time_zone")),
        ("show time zone", ShowOptions("time_zone")),
        ("show TimeZone", ShowOptions("time_zone")),
        ("; -- why\n /* be /cause ** */ show schema", ShowOptions("schema")),
    ],
)
def test_every_sensible_spelling_is_read(sql: str, said: SessionStatement) -> None:
    assert read_session(sql) == said
    assert is_session_statement(sql)


@pytest.mark.parametrize(
    "sql",
    [
        *("select 1", "", ";", "settle", "reset_all", "explain set a = 1", "'set a = 1'"),
        *("show tables", "show columns from t", "show functions", "show create table t"),
        *("show datafusion.execution.batch_size", "show schemas", "select 'set a", "select /* set"),
        *("/* /* */ set a = 1 */ select 1", '"set" a = 1', "with x as (select 1) select * from x"),
        "set a = '" + "x" * 4096 + "'",
    ],
)
def test_other_statements_are_left_to_the_engine(sql: str) -> None:
    assert read_session(sql) is None
    assert not is_session_statement(sql)


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("set", "column 4: a name"),
        ("set a", "column 6: = or TO"),
        ("set a 5", "column 7: = or TO"),
        ("set a =", "column 8: a value"),
        ("set a = -", "column 10: a number"),
        ("set a = -x", "column 10: a value is written"),
        ("set a = ?", "column 9: a value is written"),
        ("set a = $1", "column 9: a value is written"),
        ("set a = (1)", "column 9: a value is written"),
        ("set a = 0x10", "column 9: this is no decimal"),
        ("set a = E'x'", "column 9: write a plain"),
        ("set a = $$x$$", "column 9: write a plain"),
        ("set a = 1, b = 2", "column 10: the end .*longer values stand in quotes"),
        ("set time_zone = Europe/Zurich", "column 23: the end"),
        ("reset", "column 6: a name"),
        ("reset all now", "column 11: the end"),
        ("show", "column 5: a name"),
        ("show a b", "column 8: the end"),
        ("use", "column 4: a name"),
        ("use 'x'", "column 5: a name"),
        ("use a.", "column 7: a name"),
        ("use a.b c", "column 9: the end"),
    ],
)
def test_what_goes_on_in_another_way_is_a_syntax_error_at_its_place(sql: str, place: str) -> None:
    assert is_session_statement(sql)
    with pytest.raises(SyntaxRefused, match=f"line 1, {place}"):
        read_session(sql)


@pytest.mark.parametrize("sql", ["set a = 'x", "show a /*", "use $x$"])
def test_what_cannot_be_lexed_is_the_engines_to_refuse(sql: str) -> None:
    assert not is_session_statement(sql)
    with pytest.raises(SyntaxRefused):
        read_session(sql)


def test_several_statements_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="one by one"):
        read_session("set a = 1; set b = 2")


@pytest.mark.parametrize(
    "sql",
    [
        "set local a = 1",
        "set transaction isolation level serializable",
        "set session characteristics as transaction read only",
    ],
)
def test_transactions_are_refused_in_words(sql: str) -> None:
    with pytest.raises(Unimplemented, match="there are no transactions"):
        read_session(sql)


@given(st.text(st.sampled_from("set use show reset all to = 'x' \"y\" $?;-/*1.e\n"), max_size=60))
def test_no_text_is_more_than_a_typed_error(tail: str) -> None:
    for sql in (tail, f"set {tail}", f"show {tail}", f"use {tail}"):
        is_session_statement(sql)
        with contextlib.suppress(SyntaxRefused, InvalidArgument, Unimplemented):
            read_session(sql)


def test_a_text_of_comments_is_looked_at_without_going_back() -> None:
    """The first look asks a regular expression; one that goes back would not end here."""
    for filler in ("/**/", "/* */ ", "--\n", "/*", "*/*", "\n;"):
        sql = (filler * 4096)[:4095]
        assert not is_session_statement(sql)
