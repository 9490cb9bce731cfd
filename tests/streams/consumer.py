"""A consumer in a process of its own: `python -m tests.streams.consumer`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from observatory_storage import StoragePool
from tests.streams.live import live_config


def main() -> None:
    """Handle rows until the process is killed, and note the number of each."""
    database_url, redis_url, out, options = sys.argv[1:]
    arguments = {"after": "0", "group": "g", **json.loads(options)}
    pause = arguments.pop("pause", 0.002)
    with (
        StoragePool(live_config(database_url, redis_url, signals=[])) as pool,
        pool.stream("logs", **arguments) as stream,
        Path(out).open("a", encoding="ascii", buffering=1) as file,
    ):
        for entry in stream:
            file.write(f"{int(entry.row.span_id or '0', 16)}\n")
            time.sleep(pause)


if __name__ == "__main__":
    main()
