"""A replay as a process of its own, to be killed: ``python support_replay_child.py JSON``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support_ingest import World
from support_poison import replay

from catalog.spec import LiveSpec, TableName, TableSpec


def main() -> None:
    """Replays once."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    world = World(folder, given["kafka"], LiveSpec(folder / "live"))
    spec = TableSpec(
        TableName.parse(given["table"]), (given["topic"],), schema_id=7, **given["spec"]
    )
    replay(world, spec)


if __name__ == "__main__":
    main()
