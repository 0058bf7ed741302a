"""Every lane's answers, small: that it still runs, and that a wrong answer would fail it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support_kafka import Broker
from support_stack import Stack

from bench.lanes import LANES
from bench.stage import Stage

#: A thousandth of everything.
SHRINK = 1000


@pytest.fixture
def stage(kafka: Broker, tmp_path: Path) -> Stage:
    return Stage(kafka, tmp_path, SHRINK, Stack(Path(os.environ["K2_TEST_STACK"])))


@pytest.mark.parametrize("lane", LANES)
def test_the_lane_answers(lane: str, stage: Stage) -> None:
    """Lanes compare answers themselves; a peer that is not there has a line of its own."""
    figures = LANES[lane](stage)
    assert figures
    for figure in figures:
        assert figure.value is not None or figure.note, figure
