"""The scenarios, and each rule taken away alone with the scenario in which that breaks something.

A rule that lives in the catalog is taken away by editing the source of the function that decides;
one that no code of ours keeps yet, or that is an order of steps, by the model's own switch.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

from catalog import commits, cuts, heads, intents, publication, tables
from model.machine import forget
from model.world import Scenario

#: By name; small enough that all of them are exhausted in a minute.
SCENARIOS: dict[str, Scenario] = {
    "restart": Scenario((("r.r",),), reads=True, tickets=False, budget={"crash": 1}),
    "tickets": Scenario((("r.r",),), reads=True),
    "outcomes": Scenario((("r.r",),), budget={"crash": 1, "lose": 2}),
    "bounded": Scenario((("rr",),), partial=True, budget={"crash": 1, "lose": 1}),
    "zombie": Scenario((("r",),), ingests=2, budget={"pause": 1, "lose": 1}),
    "partitions": Scenario((("r", "r"),), ingests=2, budget={"pause": 1}),
    "moves": Scenario((("rr",),), budget={"lose": 1, "move": 1, "crash": 1}),
    "compaction": Scenario((("rrr",),), budget={"compact": 1, "lose": 1, "ccrash": 1}),
    "orphans": Scenario((("r",),), budget={"gc": 1, "lose": 1, "crash": 1, "pause": 1}),
    "orphans-compaction": Scenario((("rrr",),), budget={"gc": 1, "compact": 1}),
    "markers": Scenario((("r",),), budget={"foreign": 2, "expire": 1}),
    "cut": Scenario(
        (("rr",),), lasting=False, off=frozenset({"keep markers"}),
        budget={"foreign": 1, "expire": 1, "move": 1},
    ),
    "topic": Scenario((("r",), ("rr",)), reads=True, budget={"recreate": 1, "crash": 1}),
    "deleted": Scenario((("r..",),), budget={"delete": 1, "crash": 1}),
    "deleted-live": Scenario((("rr",),), reads=True, budget={"delete": 1}),
    "added": Scenario((("r", "r"),), partitions=1, budget={"add": 1, "crash": 1, "lose": 1}),
    "letters": Scenario((("rx",),), budget={"crash": 1, "mend": 1, "lose": 1}),
    "letters-zombie": Scenario((("x",),), ingests=2, budget={"pause": 1, "mend": 1}),
    "torn": Scenario((("r", "r"),), reads=True),
    "servers": Scenario((("r",),), reads=True, tickets=False, ingests=2),
    "followers": Scenario((("r",),), reads=True, tickets=False, ingests=2, follows=True),
    "takeover": Scenario((("r",),), ingests=2, follows=True, budget={"pause": 1}),
    "one-folder": Scenario((("r",),), reads=True, ingests=2, one_folder=True, budget={"pause": 1}),
    "idle": Scenario((("rr",),), reads=True, budget={"compact": 1, "expire": 1}),
    "merges": Scenario((("rr",),), reads=True, merges=True),
}  # fmt: skip

#: The same with more of everything, for `make model`.
LARGER: dict[str, Scenario] = {
    "restart": Scenario((("r.r",),), reads=True, budget={"crash": 1}),
    "outcomes": Scenario((("r.rr",),), budget={"crash": 2, "lose": 3}),
    "zombie": Scenario((("r.r",),), ingests=2, budget={"crash": 1, "pause": 1, "lose": 1}),
    "partitions": Scenario((("r", ".r"),), ingests=2, budget={"pause": 1, "lose": 1}),
    "moves": Scenario((("rr",),), budget={"crash": 1, "lose": 1, "move": 2}),
    "compaction": Scenario(
        (("r.rr",),), budget={"crash": 1, "compact": 1, "lose": 1, "ccrash": 1, "expire": 1}
    ),
    "orphans": Scenario((("rr",),), budget={"gc": 1, "lose": 1, "crash": 1, "pause": 1}),
    "markers": Scenario((("rr",),), budget={"crash": 1, "foreign": 2, "expire": 2}),
    "added": Scenario(
        (("r", "r"),), partitions=1, reads=True, budget={"add": 1, "crash": 1, "lose": 1}
    ),
    "letters": Scenario((("rxx",),), ingests=2, budget={"pause": 1, "mend": 1, "lose": 1}),
    "torn": Scenario((("r", "r"),), reads=True, merges=True, budget={"crash": 1}),
    "servers": Scenario((("r",),), reads=True, ingests=2, budget={"crash": 1, "pause": 1}),
    "followers": Scenario((("r",),), reads=True, ingests=2, follows=True),
    "takeover": Scenario(
        (("rr",),), ingests=2, follows=True, budget={"crash": 1, "pause": 1, "lose": 1}
    ),
    "one-folder": Scenario(
        (("rr",),), reads=True, ingests=2, one_folder=True, budget={"pause": 1, "crash": 1}
    ),
}


@dataclass(frozen=True)
class Edit:
    """A function of the catalog with some pieces of its source replaced."""

    home: ModuleType | type
    function: str
    pieces: dict[str, str]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The function as edited."""
        kept = inspect.getattr_static(self.home, self.function)
        source = textwrap.dedent(inspect.getsource(kept))
        for find, replacement in self.pieces.items():
            assert source.count(find) == 1, f"{self.function} does not hold {find!r} once"
            source = source.replace(find, replacement)
        module = inspect.getmodule(self.home)
        assert module is not None
        made: dict[str, object] = {}
        code = "from __future__ import annotations\n" + source
        exec(compile(code, self.function, "exec"), vars(module), made)  # noqa: S102 - our own source
        setattr(self.home, self.function, made[self.function])
        try:
            yield
        finally:
            setattr(self.home, self.function, kept)


@dataclass(frozen=True)
class Removal:
    """A rule that is taken away.

    Attributes:
        what: what is no longer so.
        rules: its numbers in docs/architecture.md; empty: dead letters have none.
        scenario: where that breaks something.
        off: the model's switches.
        edits: pieces of the catalog.
    """

    what: str
    rules: tuple[int, ...]
    scenario: str
    off: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    @contextmanager
    def applied(self) -> Iterator[Scenario]:
        """The scenario without the rule."""
        scenario = SCENARIOS[self.scenario]
        with ExitStack() as stack:
            for edit in self.edits:
                stack.enter_context(edit.applied())
            yield replace(scenario, off=scenario.off | {*self.off})
        forget()


def _never(home: ModuleType | type, function: str, condition: str) -> Edit:
    """The condition is never met."""
    return Edit(home, function, {condition: "if False:"})


_NO_POSITIONS = _never(
    intents.Flush, "marker_on", "if not base.positions.same_as(self.expected.positions):"
)
_NO_LANDED = Edit(commits, "has_landed", {"return sent or intent.landed(base)": "return False"})
_NO_BACKWARDS = _never(
    intents, "_refuse_backwards", "if behind := new.positions.behind(base.positions):"
)
_NO_OWNER = _never(
    intents, "_owned", "if (base.epoch, base.writer) != (expected.epoch, expected.writer):"
)
_NO_REPEAT = _never(
    intents.Flush,
    "_refuse_stale_files",
    "if staged.rows and self.new.positions.same_as(base.positions):",
)
_HOLES = (
    Edit(
        cuts,
        "_walk",
        {
            "if part_first > position:": "if False:",
            "yield Pick(index, part, position,": "yield Pick(index, part, part_first,",
            "if position < end:": "if False:",
        },
    ),
)

REMOVALS = (
    Removal("segments begin at their first row", (1,), "restart", ("ranges",)),
    Removal("new partitions are read from their end", (1,), "added", ("earliest",), _HOLES),
    Removal(
        "the copy of the marker counts for any snapshot",
        (2,),
        "cut",
        edits=(_never(heads, "recorded_marker", "if missing is None or copied_id != missing:"),),
    ),
    Removal("expiry takes markers away", (2,), "markers", ("keep markers",)),
    Removal("progress without rows is not committed", (3,), "deleted", ("empty",)),
    Removal(
        "the recorded positions are not compared",
        (4, 5),
        "moves",
        edits=(_NO_POSITIONS, _NO_BACKWARDS),
    ),
    Removal("the owner is not compared", (5,), "zombie", edits=(_NO_OWNER,)),
    Removal(
        "a commit that was not answered is sent again blindly",
        (6,),
        "outcomes",
        edits=(_NO_LANDED, _NO_POSITIONS, _NO_REPEAT),
    ),
    Removal("files are deleted after an unknown outcome", (6,), "outcomes", ("keep files",)),
    Removal(
        "a compaction keeps the marker that it began with", (7,), "compaction", ("marker anew",)
    ),
    Removal("orphan removal does not move the gc number", (8,), "orphans", ("gc fence",)),
    Removal(
        "a writer does not look at the gc number",
        (8,),
        "orphans",
        edits=(_never(intents, "refuse_stale", "if staged.gc != base.gc:"),),
    ),
    Removal("a compaction does not look at it", (8,), "orphans-compaction", ("gc number",)),
    Removal("topics are known by their names while they are read", (9,), "topic", ("identity",)),
    Removal(
        "topics are known by their names when they are claimed",
        (9,),
        "topic",
        edits=(_never(intents, "refuse_recreated", "if now.get(then.topic, then) != then:"),),
    ),
    Removal("a version is published before its commit landed", (10,), "restart", ("commit first",)),
    Removal("segments go before the next manifest is there", (10, 14), "restart", ("order",)),
    Removal("two ingests share a live folder", (11,), "one-folder", ("lock",)),
    Removal(
        "a restarted ingest publishes at once, to whoever comes",
        (12, 20),
        "restart",
        ("session",),
        edits=(
            _never(
                publication.Publication,
                "publish",
                "if self._held is not None and not end.covers(self.owed):",
            ),
        ),
    ),
    Removal("an idle ingest does not follow the head", (13,), "idle", ("follow",)),
    Removal("listed segments are trimmed", (14,), "restart", ("trim",)),
    Removal("snapshots expire under a ticket", (15,), "idle", ("retention",)),
    Removal("each partition's end is looked up when it is read", (16,), "torn", ("one version",)),
    Removal(
        "the cut takes whole parts",
        (16,),
        "merges",
        edits=(
            Edit(
                cuts,
                "_rows",
                {"if pick.first <= part.first and pick.next >= part.next:": "if True:"},
            ),
        ),
    ),
    Removal("a ticket is answered up to where the table is now", (17,), "torn", ("same end",)),
    Removal(
        "a ticket is answered from any later snapshot",
        (17,),
        "tickets",
        edits=(Edit(tables.Tables, "_open_on", {"and pin.high.covers(manifest.committed)": ""}),),
    ),
    Removal(
        "a hole is passed over",
        (4, 19),
        "deleted-live",
        ("stay",),
        edits=_HOLES,
    ),
    Removal(
        "a follower's version ends where it reads, be it below its snapshot",
        (10,),
        "followers",
        edits=(
            Edit(
                publication.Publication,
                "_end",
                {"return self._committed().max(self._high)": "return self._high"},
            ),
        ),
    ),
    Removal("a session may go back", (20,), "servers", ("session",)),
    Removal("rows are committed before their dead letters", (), "letters", ("letters first",)),
    Removal("a dead letter is decoded again after a crash", (), "letters", ("sticky",)),
    Removal("dead letters are added without a look", (), "letters", ("letters once",)),
    Removal("dead letters are not fenced", (), "letters-zombie", ("letters fence",)),
)
