"""How files of other schemas are read as rows of a declaration: by field id, whole files at a time.

A data file says in its footer which columns it has, by field id. Files in which the same columns
have the same names are one group, which the engine scans natively: its own names and a projection
that renames them and fills in what they lack.

Pure; the footers are read by ``catalog.footers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from catalog.declaration import children, field_id, find, has_fill, has_ids, is_filled


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are read by one scan.

    Attributes:
        names: per declared column its name in the files; None: they lack it.
        paths: the files.
    """

    names: tuple[str | None, ...]
    paths: tuple[str, ...]


def groups(
    declared: pa.Schema, files: Mapping[str, pa.Schema]
) -> tuple[list[Group], tuple[str, ...]]:
    """Splits files by how they are read.

    Args:
        declared: with ids.
        files: path → the columns in the file's footer, with ids where it has them.

    Returns:
        The groups, and the files that no scan by names can read: those without ids, and those
        whose nested columns were renamed or need a fill.
    """
    found: dict[tuple[str | None, ...], list[str]] = {}
    others: list[str] = []
    known: dict[int, tuple[str | None, ...] | None] = {}  # by identity: most files share a footer's
    for path, file in files.items():
        if id(file) not in known:
            known[id(file)] = names_in(declared, file)
        names = known[id(file)]
        if names is None:
            others.append(path)
        else:
            found.setdefault(names, []).append(path)
    return [Group(names, tuple(paths)) for names, paths in found.items()], tuple(others)


def names_in(declared: pa.Schema, file: pa.Schema) -> tuple[str | None, ...] | None:
    """Per declared column its name in a file; None: it cannot be read by names."""
    if not has_ids(file):
        return None
    names: list[str | None] = []
    places = {field_id(field): place for place, field in reversed(list(enumerate(file)))}
    for field in declared:
        number = field_id(field)
        place = None if number is None else places.get(number)
        if place is None:
            if children(field.type) and is_filled(field):
                return None  # the engine has no literals of nested types
            names.append(None)
            continue
        theirs = file.field(place)
        if not _read_by_name(children(field.type), children(theirs.type), field.type):
            return None
        names.append(theirs.name)
    return tuple(names)


def _read_by_name(ours: Sequence[pa.Field], theirs: Sequence[pa.Field], kind: pa.DataType) -> bool:
    """Whether names inside a nested column give what its ids mean."""
    if len(ours) == 0 or not pa.types.is_struct(kind):
        pairs = zip(ours, theirs, strict=False)
        return all(_read_by_name(children(a.type), children(b.type), a.type) for a, b in pairs)
    named = {field.name: field for field in theirs}
    for field in ours:
        place = find(theirs, field)
        by_id = None if place is None else theirs[place]
        if by_id is None:
            if field.name in named or has_fill(field):
                return False
        elif by_id.name != field.name or not _read_by_name(
            children(field.type), children(by_id.type), field.type
        ):
            return False
    return True
