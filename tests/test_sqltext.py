"""The text of a statement: what is refused before any parser sees it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from datafusion import SessionContext
from hypothesis import given
from hypothesis import strategies as st

from flight_server.protocol.errors import (
    InvalidArgument,
    ResourceExhausted,
    SyntaxRefused,
    Unimplemented,
)
from flight_server.sqltext import Bounds, read

BOUNDS = Bounds()


@pytest.mark.parametrize(
    ("sql", "rewritten", "count"),
    [
        ("select ?", "select $1", 1),
        ("select ? + ? from t where a = ?", "select $1 + $2 from t where a = $3", 3),
        ("select '?', \"?\", `?` -- ?\n, ? /* ? /* ? */ ? */", None, 1),
        ("select E'\\'?', $$ ? $$, $t$ ? $t$, ?", None, 1),
        ("select $1, $2, $1", "select $1, $2, $1", 2),
        ("select ?1, ?2", "select $1, $2", 2),
        ("select a::int from t", "select a::int from t", 0),
    ],
)
def test_question_marks_become_numbers_only_where_they_are_parameters(
    sql: str, rewritten: str | None, count: int
) -> None:
    text = read(sql, BOUNDS)
    assert text.parameters == count
    if rewritten is not None:
        assert text.rewritten == rewritten
    assert text.rewritten.count("?") == sql.count("?") - (count if "$1," not in sql else 0)


@pytest.mark.parametrize(
    "sql", ["select ?, $1", "select $2", "select $name", "select $0", "select $99999999"]
)
def test_parameters_of_two_styles_with_holes_or_names_are_refused(sql: str) -> None:
    with pytest.raises(InvalidArgument):
        read(sql, BOUNDS)


_ATOMS = st.sampled_from(
    [
        *("'a'", "'?'", "'it''s ?'", "E'\\'?'", "E'\\\\'", "$$?$$", "$t$ ? ' $t$", "X'41'", "?"),
        *("1", "2.5", "1e3", ".5", "1 + ?", "'x' || '?' || ?", "? = 1", "(?)", "- -1", "-?"),
        *("E'''?' || ?", "'--' || ?", "'/*' || ? || '*/'", "1 --1 ?\n + ?"),
    ]
)
_TRIVIA = st.sampled_from(
    ["", " ", "\t\n", "-- ?\n", "--\n", "/* ? */", "/* /* ? */ ? */", "/*'*/", "/**/", '--"\n']
)


@given(st.lists(st.tuples(_TRIVIA, _ATOMS, _TRIVIA), min_size=1, max_size=8))
def test_the_lexer_sees_the_parameters_that_the_engine_sees(
    items: list[tuple[str, str, str]],
) -> None:
    """Strings and comments of every kind hide the same question marks from both."""
    columns = [f"{a} {x}{b} as c{i}" for i, (a, x, b) in enumerate(items)]
    text = read("select " + ", ".join(columns), BOUNDS)
    plan = SessionContext().sql(text.rewritten).logical_plan().display_indent()
    assert set(re.findall(r"\$(\d+)", plan)) == {str(n + 1) for n in range(text.parameters)}


def test_a_comment_that_only_other_lexers_know_hides_no_operator() -> None:
    """``{# … #}`` is a comment to sqlglot and code to DataFusion: a chain in it is counted."""
    with pytest.raises(ResourceExhausted, match="operators"):
        read("select {# " + "1 + " * 2000 + "1 #}", BOUNDS)


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "1 + " * 20_000 + "1",
        "select 1 where " + "true and " * 20_000 + "true",
        "select 1" + "::int" * 12_000,
        "select " + "- " * 5_000 + "1",
        "select 'a'" + " || 'a'" * 5_000,
        "select 1" + " union all select 1" * 2_500,
        "select '" + "x" * 100_000 + "'",
        "select " + "(" * 5_000 + "1" + ")" * 5_000,
        "select " + "case when true then " * 60 + "1" + " end" * 60,
        "with a0 as (select 1 x)"
        + "".join(
            f", a{i} as (select * from a{i - 1} union all select * from a{i - 1})"
            for i in range(1, 22)
        )
        + " select count(*) from a21",
        'with "A" as (select 1 x)'
        + "".join(
            f", b{i} (x) as not materialized (select x from "
            + ('"A"' if i == 0 else f"b{i - 1}")
            + " union select x from "
            + ('"A"' if i == 0 else f"b{i - 1}")
            + ")"
            for i in range(22)
        )
        + " select 1 from b21",
    ],
)
def test_text_that_could_kill_or_stall_the_engine_is_refused(sql: str) -> None:
    with pytest.raises(ResourceExhausted):
        read(sql, BOUNDS)


def test_the_bounds_are_not_there_for_nothing() -> None:
    """The statement that the operator bound refuses really ends the engine's process."""
    sql = "select 1" + "::int" * 12_000
    code = "import sys; from datafusion import SessionContext as C; C().sql(sys.stdin.read())"
    died = subprocess.run([sys.executable, "-c", code], input=sql.encode(), check=False)
    assert died.returncode < 0


@pytest.mark.parametrize(
    "sql",
    [
        *("insert into t values (1)", "delete from t", "update t set a = 1", "truncate table t"),
        *("merge into t using s on a = b when matched then delete", "drop table t"),
        *("create table t as select 1", "create view v as select 1", "alter table t rename to u"),
        "create external table t stored as csv location '/etc/passwd'",
        *("copy t to '/tmp/x.csv'", "copy (select 1) to '/tmp/x'", "explain delete from t"),
        *("explain analyze insert into t select 1", "set a = 1", "SET TIME ZONE 'UTC'", "reset a"),
        *("prepare p as select 1", "execute p", "deallocate p", "begin", "commit", "rollback"),
        *("  /* x */ INSERT into t select 1", "(insert into t select 1)", "use x", "call f()"),
    ],
)
def test_statements_that_write_or_change_settings_are_refused(sql: str) -> None:
    with pytest.raises(Unimplemented, match="not offered"):
        read(sql, BOUNDS)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from t tablesample system (10)",
        "select * from t where s not similar to '(a|b)%'",
        "select * from t TABLESAMPLE (10 rows)",
        "select * from t sample (10)",
        "select * from t as a tablesample bernoulli (1)",
        "select a, sum(b) from t group by a with rollup",
        "select a, sum(b) from t group by a with totals",
        "select * from t prewhere a = 1",
        "select * from f(1) with ordinality",
        "select * from t connect by a = 1",
        "select * from t for version between 5 and 6",
        "select * from t for system_time from '2024-01-01' to '2024-01-02'",
        "select * from t for update",
    ],
)
def test_clauses_that_the_engine_would_ignore_are_refused(sql: str) -> None:
    with pytest.raises(Unimplemented, match="not offered"):
        read(sql, BOUNDS)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 as tablesample",
        'select "tablesample" from t',
        "select t.sample from t",
        "select a, sum(b) from t group by rollup (a)",
        "select extract(year from t) from x order by a desc",
        "explain select 1",
        "select 'insert into t' as set_me",
        "with x as (select 1) select * from x;",
        "values (1), (2)",
        "from t",
        "select {'a': 1}, [1, 2]['x']",
        "select * from t where a in (" + ",".join("1" for _ in range(5000)) + ")",
        "select count(*) over (rows between 1 preceding and current row) from t",
        "show tables",
    ],
)
def test_statements_that_read_pass(sql: str) -> None:
    assert read(sql, BOUNDS).kind in {"query", "explain"}


@pytest.mark.parametrize("sql", ["select 1; select 2", "select 1; drop table t", ";; select 1; x"])
def test_several_statements_are_refused(sql: str) -> None:
    with pytest.raises(InvalidArgument, match="several"):
        read(sql, BOUNDS)


@pytest.mark.parametrize("sql", ["", " ", ";", "-- nothing", "/* */"])
def test_nothing_is_refused(sql: str) -> None:
    with pytest.raises(InvalidArgument, match="empty"):
        read(sql, BOUNDS)


@pytest.mark.parametrize(
    ("sql", "line", "column", "caret"),
    [
        ("select 'abc", 1, 8, 9),
        ("select 1,\n  /* x", 2, 3, 4),
        ('select\n\n "a', 3, 2, 3),
        ("select q'{ ' }' + 1", 1, 8, 9),
        ("select U&'x'", 1, 8, 9),
        ("select $t$ a $ b $t$", 1, 8, 9),
    ],
)
def test_what_cannot_be_lexed_is_shown_with_a_caret(
    sql: str, line: int, column: int, caret: int
) -> None:
    with pytest.raises(SyntaxRefused, match=f"line {line}, column {column}") as refused:
        read(sql, BOUNDS)
    assert str(refused.value).splitlines()[-1] == " " * caret + "^"


def doubled(twice: str) -> str:
    """Twenty queries, each over the one before."""
    chain = [f"q{n} as (select {twice} as s from q{n - 1})" for n in range(1, 21)]
    return f"with q0 as (select s from t), {', '.join(chain)} select s from q20"


@pytest.mark.parametrize(
    "sql",
    [
        "select repeat('x', 2000000000)",
        "select \"repeat\"('x', 2000000000)",
        "select REPEAT ( 'x' , 2000000000 )",
        "select lpad('x', n) from t",
        "select rpad('x', $1)",
        "select array_repeat(1, 100000000)",
        "select array_resize([1], 100000000)",
        "select range(1, 1000000000)",
        "select generate_series(1, n) from t",
        "select unnest(generate_series(now(), now(), interval '1 second'))",
        "select repeat(repeat('x', 10000), 10000)",
        "select 1 from t, range(1000000000)",
        "select " + "replace(" * 7 + "s" + ", 'x', 'xxxxxxxxxx')" * 7 + " from t",
        "select replace(replace(replace(s, 'x', s), 'x', s), 'x', s) from t",
        "select regexp_replace(regexp_replace(s, '.', $1), '.', repeat('y', 1000)) from t",
        "select replace(s, 'x', '" + "x" * 999 + "') from "
        "(select replace(s, 'x', '" + "x" * 999 + "') s from t)",
        "with a as (select replace(s, 'x', '" + "x" * 999 + "') s from t) "
        "select replace(s, 'x', '" + "x" * 999 + "') from a",
        doubled("s || s"),
        doubled("concat(s, s)"),
        doubled("[s, s]"),
        doubled("array_concat(s, s)"),
        "select (" + "select (s || s) || s as s from (" * 9 + "t" + ")" * 10,
    ],
)
def test_functions_that_make_huge_values_are_refused(sql: str) -> None:
    with pytest.raises(ResourceExhausted):
        read(sql, BOUNDS)


@pytest.mark.parametrize(
    "sql",
    [
        "select repeat('x', 10), lpad(a, 20, '0') from t",
        "select unnest(range(1, 100))",
        "select generate_series(-5, 5, 2)",
        "select " + ", ".join(["regexp_replace(s, 'x', 'a text that is longer')"] * 20) + " from t",
        "select replace(replace(replace(s, '&', '&amp;'), '<', '&lt;'), '\"', '&quot;') from t",
        "with a as (select replace(s, '.', '-----') s from t) select a.s, a.s, a.s, a.s from a",
        "select " + ", ".join(["a || '-' || b || '/' || c || d[1]"] * 20) + " from t",
        "with a as (select concat(x, y, z) s from t) select s || s || 'b' from a where s || s = ''",
        "select * from t where s in (" + ", ".join(["'a'"] * 99) + ") or n in (1, 2, 3)",
        "select * from generate_series(1, 1000000000)",
        "select * from t cross join generate_series(1, 10)",
        "select sum(a) over (order by b range between 1 preceding and 1 following) from t",
    ],
)
def test_the_same_functions_pass_where_they_are_bounded_or_stream(sql: str) -> None:
    assert read(sql, BOUNDS).sql == sql


def test_offsets_in_the_rewritten_text_lead_back_to_the_original() -> None:
    sql = "select ?, ?, nonsense here"
    text = read(sql, BOUNDS)
    assert text.origin(text.rewritten.index("nonsense")) == sql.index("nonsense")
    assert text.origin(0) == 0
