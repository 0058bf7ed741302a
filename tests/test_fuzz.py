"""The fuzzers' targets: the corpus passes, and so do bytes made of it by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.__main__ import CORPUS, executions
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def corpus(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_of_the_corpus_is_an_answer_or_a_typed_error(target: str) -> None:
    """What a fuzzer has found once is never found again."""
    files = corpus(target)
    assert files, "no corpus: write sound bytes into tests/fuzz/seeds.py"
    for file in files:
        TARGETS[target](file.read_bytes())


def test_the_corpus_has_no_folder_without_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


@st.composite
def damaged(draw: st.DrawFn, target: str) -> bytes:
    """A file of the corpus with some bytes replaced, taken out or put in; or any bytes."""
    files = corpus(target)
    data = bytearray(draw(st.sampled_from(files)).read_bytes())
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(data)))
        next_ = min(len(data), first + draw(st.integers(0, 8)))
        data[first:next_] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.hypothesis
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_bytes_are_an_answer_or_a_typed_error(target: str) -> None:
    """Without atheris too: where it has no wheel, ``make fuzz`` runs this with more examples."""

    @settings(suppress_health_check=list(HealthCheck))
    @given(st.one_of(damaged(target), st.binary(max_size=64)))
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()


def test_the_executions_are_read_from_what_the_fuzzer_prints() -> None:
    printed = "#2 INITED\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec: 5\n"
    assert executions(printed) == 1234
    assert executions("nothing") == 0
