"""Where our engine and DuckDB are known not to agree, and why: the one list of them.

An expression that meets one of these carries its name, and its statement is not asked of DuckDB;
the other comparisons (every way of keeping rows, oracles) are made all the same.
"""

from __future__ import annotations

from types import MappingProxyType

APART = MappingProxyType(
    {
        "signed zero": "sorts, windows, CASE x WHEN and nullif tell -0.0 from 0.0 here only",
        "wide arithmetic": "64-bit integers wrap around here and are an error in DuckDB",
        "decimal scale": "products, quotients and averages of decimals have other scales; DuckDB's"
        " quotients and averages are doubles",
        "nanoseconds": "a time literal has nanoseconds here and microseconds in DuckDB",
    }
)

#: Written differently for DuckDB (``Expr.duck``), or not drawn at all.
WRITTEN = MappingProxyType(
    {
        "integer division": "a / b of integers is an integer here and a double in DuckDB: a // b",
        "nulls": "sort where a direction alone says; always written out",
        "negative NaN": "-x of NaN has its sign bit set and is less than every number here, and the"
        " greatest in DuckDB: nothing is negated",
        "greatest of a group": "min and max of groups depend on the order of rows with a NaN:"
        " the engine compares groups' values by <, under which nothing is more or less than NaN",
        "distinct beside min": "count(distinct …) makes groups (see above): no min of floats",
        "length of a list": "array_length([]) is null here, len([]) is 0: neither is asked",
    }
)

#: What we refuse and DuckDB answers, by the words of the refusal.
REFUSED = MappingProxyType(
    {
        "whether this IN over a sub-query": "the engine loses nulls (flight_server/nulls.py)",
        "not offered; docs/sql.md says": "sub-queries in other places than the engine plans them",
        "NOT IN over a sub-query beside": "joins by equal nulls lose their keys (cautions.py)",
        "two lists behind IN without a common": "the engine makes truth of null (lists.py)",
        "of a column that is one constant would": "it is 1 over no rows (cautions.py)",
        "the sub-query of a value may give several": "joins would take all of them (cautions.py)",
        "these joins and sub-queries together": "settings that ask for one another (judging.py)",
        "a cast has no name of its own": "the engine calls max(x) and max(cast(x as …)) alike",
        "ANY or ALL inside a further": "the engine finds other rows (flight_server/nulls.py)",
        "columns of one name meet in these joins": "the engine fails on its own projections",
        "a filter above this RIGHT JOIN": "neither hash nor merge joins get it right (the same)",
        "For SELECT DISTINCT, ORDER BY expressions": "the engine, of fields of structs",
        "a join without an equality": "known to be small only where files say how many rows",
        "is declared as non-nullable but contains null": "the engine, of a full join of joins",
        "form of correlated sub-query": "the same",
    }
)
