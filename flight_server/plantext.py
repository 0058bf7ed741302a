"""What plans show, as patterns: the bindings give no other way to tell some things."""

#: A literal that is all of an operand: ``Int64(5)``, ``Utf8("x")``, ``Decimal128(Some(150),9,2)``,
#: ``TimestampMicrosecond(0, Some("UTC"))``. A text with quotes, or over several lines, is taken for
#: none.
LITERAL = (
    r"(?:NULL|(?!(?:TRY_)?CAST\()[A-Z]\w*+"
    r"\((?:[^()\"\n]|\"[^\"\n]*\"|\((?:[^()\"\n]|\"[^\"\n]*\")*+\))*+\))"
    r"(?: AS \w++\))*+(?=[\]),]| AND| OR|$)"
)
