"""Random statements: every way of keeping rows, oracles, parameters over the wire, and DuckDB.

A short campaign; ``make differential`` runs a long one. ``tests/differential`` has the parts.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pytest
from differential.answers import rows, same, says_something
from differential.asker import Asker
from differential.campaign import Budget, case, run, shrunk
from differential.grammar import Grammar
from differential.known import APART
from differential.rows import SCHEMA
from differential.tally import Answer, Finding, Tally
from differential.trees import Expr, Query, Rendering, Select
from differential.ways import HYBRID, KEPT, TABLES, WAYS, House, house
from support_flight import connect, serving

from flight_server import engine

SEED = 7
STATEMENTS = 40
SMALL = (90, 20)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), str(SEED), SMALL) as made:
        yield made


def test_random_statements_agree(built: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Of them at least 60 % return rows and 30 % join; what was done is printed."""
    tally, found = Tally(), []
    with serving(built.service()) as server, connect(server) as wire:
        for number in range(STATEMENTS):
            asker = Asker(built, tally, random.Random(), wire)
            found.append(case(asker, f"{SEED}.{number}"))
    with capsys.disabled():
        print(f"\nseed {SEED}: {tally}")  # noqa: T201
    assert not [str(each) for each in found if each is not None]
    assert tally.statements == STATEMENTS
    assert tally.answered >= 0.6 * tally.statements
    assert tally.joined >= 0.3 * tally.statements
    assert min(tally.answers[way] for way in (*WAYS, "wire")) > 0
    assert min(tally.duck, tally.oracle, tally.alone) > 0


def test_a_name_means_each_way_in_turn_and_is_planned_once(
    built: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    read = engine.read
    monkeypatch.setattr(
        engine, "read", lambda sql, bounds: (texts.append(sql), read(sql, bounds))[1]
    )
    asked = f"select _offset, k from {KEPT}.a"
    kept = [built.ask(asked, way=way) for way in HYBRID]
    assert texts == [asked]
    own = [built.ask(f"select _offset, k from {way}.a") for way in HYBRID]
    assert [each.num_rows for each in kept] == [each.num_rows for each in own]
    (split,) = rows(built.ask(f'select count(*) from {KEPT}."a$live"', way="split"))
    (none,) = rows(built.ask(f'select count(*) from {KEPT}."a$live"', way="history"))
    assert split > none == (0,)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", TABLES)
def test_a_way_keeps_the_very_rows(built: House, way: str, table: str) -> None:
    """Nested columns, too, which statements touch little."""
    wanted = built.rows[table]
    columns = ", ".join(wanted.schema.names)
    found = built.ask(f"select {columns} from {way}.{table}")
    assert same(hashable(found), hashable(wanted))


def hashable(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(map(repr, row)) for row in rows(table)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", TABLES)
def test_what_is_known_of_all_rows_is_what_is_computed(built: House, way: str, table: str) -> None:
    """Asked beside a sum, the engine computes it (``flight_server.known``)."""
    columns = [f.name for f in SCHEMA if not pa.types.is_nested(f.type) and f.name != "b"]
    facts = [f"count({name})" for name in columns]
    facts += [f"{end}({name})" for name in columns for end in ("min", "max")]
    random.Random(f"{SEED} {way}").shuffle(facts)
    ordered = [each for each in facts if each[4:-1] in {"id", "k", "t", "z", "day", "_offset"}]
    for some in (["count(*)"], facts[:4], ordered[:2], ordered):
        items = ", ".join(f"{each} as c{i}" for i, each in enumerate(some))
        known = built.ask(f"select {items} from {way}.{table}")
        computed = built.ask(f"select {items}, sum(1) as rest from {way}.{table}")
        assert hashable(known) == hashable(computed.drop_columns("rest"))


def test_the_ways_are_what_they_say(built: House) -> None:
    parts = {}
    for way in ("history", "live", "split"):
        counts = (f'(select count(*) from {way}."a${part}") as {part}' for part in ("runs", "live"))
        (parts[way],) = rows(built.ask(f"select {', '.join(counts)}"))
    total = built.rows["a"].num_rows
    assert parts["history"] == (total, 0)
    assert parts["live"] == (0, total)
    assert min(parts["split"]) > 0
    assert sum(parts["split"]) == total
    (files,) = rows(
        built.ask('select count(*), sum(cardinality(delete_files)) from evolved."a$files"')
    )
    assert min(files) > 0


def test_a_seed_draws_the_same_statements() -> None:
    def drawn(seed: int) -> list[str]:
        grammar = Grammar(random.Random(seed))
        return [grammar.statement().text(Rendering("ours", "split")) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_every_reason_not_to_ask_duckdb_is_named() -> None:
    grammar = Grammar(random.Random(3), signed_zero=True)
    met = {
        each.apart
        for query in itertools.islice(iter(grammar.statement, None), 400)
        for each in query.expressions()
    }
    assert met - {""} == set(APART)


class Forgetful(Asker):
    """Loses a row of the tail where a statement has a comparison with less-than."""

    def ours(self, query: Query, way: str, *, alone: bool = False) -> Answer:
        """As it should be, but for that."""
        found = super().ours(query, way, alone=alone)
        broken = way == "split" and any(" < " in each.ours for each in query.expressions())
        return found[1:] if broken and not isinstance(found, str) else found


def test_a_lost_row_is_found_and_its_statement_made_small(built: House) -> None:
    """What the shrinking leaves is the comparison and nothing else."""
    grammar = Grammar(random.Random(1))
    drawn = (each for each in iter(grammar.filtered, None) if each.joins)

    def check(query: Query) -> Finding | None:
        return Forgetful(built, Tally(), random.Random(0)).agree(query)

    query, found = next((each, seen) for each in drawn if (seen := check(each)) is not None)
    small = shrunk(check, query, found)
    assert small.what == "ways of keeping rows"
    assert len(small.texts[1]) < len(query.text(Rendering("ours", "split")))
    assert small.texts[1].count(" < ") == 1
    assert not any(
        f" {word} " in small.texts[1] for word in ("and", "or", "group", "order", "case")
    )


@pytest.mark.parametrize("shape", ["partitioned", "unoptimised"])
def test_the_oracles_see_a_lost_row(built: House, shape: str) -> None:
    grammar = Grammar(random.Random(2))
    draw = {"partitioned": grammar.partitionable, "unoptimised": grammar.filtered}[shape]
    less = Expr("bool", "({0} < {1})", (Expr("int", "t1.id"), Expr("int", "15")))
    query = next(each for each in iter(draw, None) if isinstance(each, Select))
    query = Select((Expr("int", "t1.id"),), query.sources[:1], less)
    seen = [
        getattr(Forgetful(built, Tally(), random.Random(n)), shape)(query) is not None
        for n in range(12)
    ]
    assert any(seen)
    assert not any(
        getattr(Asker(built, Tally(), random.Random(n)), shape)(query) for n in range(12)
    )


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ([1.0], [1.0], True),
        ([1.0], [1.0000000000000002], False),
        ([0.0], [-0.0], False),
        ([float("nan")], [float("nan")], True),
        ([Decimal("1.50")], [Decimal("1.5000")], True),
        ([Decimal(2)], [2], True),
        ([True], [1], False),
        ([None], [0], False),
        (["a", "a"], ["a"], False),
        (["a", "b"], ["b", "a"], True),
    ],
)
def test_answers_are_compared_by_value(
    left: list[object], right: list[object], *, equal: bool
) -> None:
    assert same(rows(pa.table({"v": left})), rows(pa.table({"v": right}))) is equal
    if len(left) > 1 and equal:
        assert not same([("a",), ("b",)], [("b",), ("a",)], is_sorted=True)


def test_a_lone_row_of_nothing_says_nothing() -> None:
    assert not says_something([])
    assert not says_something([(0, None)])
    assert says_something([(0, 1)])
    assert says_something([(None,), (None,)])


def test_a_campaign_ends_by_its_budget() -> None:
    assert list(run(SEED, Budget(statements=3, seconds=-1), Tally())) == []
    assert list(run(SEED, Budget(statements=0, seconds=600), Tally())) == []
