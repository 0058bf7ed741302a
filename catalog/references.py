"""Schema references: named types of other subjects, put where a schema first uses them.

Source: Apache Avro 1.12 specification, "Names"; Confluent Schema Registry, "Schema references".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

_NAMED = ("record", "error", "enum", "fixed")
_OWN_WORDS = frozenset(
    [
        "null",
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "bytes",
        "string",
        "array",
        "map",
        "record",
        "error",
        "enum",
        "fixed",
    ]
)


def inline(avro: object, referenced: Iterable[object]) -> object:
    """``avro`` with each type that only ``referenced`` defines written out at its first use.

    Args:
        avro: parsed Avro JSON.
        referenced: parsed Avro JSON of all schemas it refers to, directly or not.

    Returns:
        JSON that needs no other schema. Names that nobody defines stay: the parser refuses them.
    """
    definitions: dict[str, Mapping[str, object]] = {}
    for schema in referenced:
        for name, definition in _definitions(schema, ""):
            definitions.setdefault(name, definition)
    return _Inliner(definitions).walk(avro, "")


class _Inliner:
    def __init__(self, definitions: Mapping[str, Mapping[str, object]]) -> None:
        self._definitions = definitions
        self._written: set[str] = set()

    def walk(self, avro: object, namespace: str) -> object:
        if isinstance(avro, str):
            return self._name(avro, namespace)
        if isinstance(avro, list):
            return [self.walk(branch, namespace) for branch in avro]
        if not isinstance(avro, Mapping):
            return avro
        copy = dict(avro)
        if copy.get("type") in _NAMED:
            full, namespace = _full_name(copy, namespace)
            self._written.add(full)
        for key, child in _children(copy):
            copy[key] = self.walk(child, namespace)
        if isinstance(copy.get("fields"), list):
            copy["fields"] = [self._field(f, namespace) for f in copy["fields"]]
        return copy

    def _field(self, avro: object, namespace: str) -> object:
        if not isinstance(avro, Mapping):
            return avro
        return {**avro, "type": self.walk(avro.get("type"), namespace)}

    def _name(self, name: str, namespace: str) -> object:
        if name in _OWN_WORDS:
            return name
        for full in (_join(namespace, name), name):
            if full in self._written:
                return name
            if full in self._definitions:
                return self.walk(self._definitions[full], "")
        return name


def _definitions(avro: object, namespace: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every named type inside a schema with its full name, written so that it stands alone."""
    if isinstance(avro, list):
        for branch in avro:
            yield from _definitions(branch, namespace)
    if not isinstance(avro, Mapping):
        return
    if avro.get("type") in _NAMED:
        full, namespace = _full_name(avro, namespace)
        yield full, {**avro, "name": full.rpartition(".")[2], "namespace": namespace}
    for _, child in _children(avro):
        yield from _definitions(child, namespace)
    fields = avro.get("fields")
    for field in fields if isinstance(fields, list) else ():
        if isinstance(field, Mapping):
            yield from _definitions(field.get("type"), namespace)


def _children(avro: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The parts of a type that are types themselves, fields apart."""
    for key in ("type", "items", "values"):
        if key in avro:
            yield key, avro[key]


def _full_name(avro: Mapping[str, object], namespace: str) -> tuple[str, str]:
    name, own = str(avro.get("name", "")), avro.get("namespace")
    if "." in name:
        return name, name.rpartition(".")[0]
    inside = own if isinstance(own, str) else namespace
    return _join(inside, name), inside


def _join(namespace: str, name: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name
