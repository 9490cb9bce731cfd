"""A plain script stores its last rows when SIGTERM ends it, by the lines of docs/processes.md."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.hosts.hosting import names_stored, running, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "processes.md").read_text()
(HANDLER,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SCRIPT = """
import time
from datetime import UTC, datetime
from observatory_storage import StoragePool, TraceWriter, WriterConfig

writer = TraceWriter(StoragePool.from_env(), WriterConfig(flush_interval_secs=None))
writer.write_span({
    "trace_id": "ab" * 16, "span_id": "cd" * 8, "name": "of a script", "service_name": "script",
    "start_time": datetime.now(UTC), "status": "ok",
})
print("written", flush=True)
while True:
    time.sleep(1)
"""


def test_sigterm_is_a_normal_end(database_url: str) -> None:
    process: subprocess.Popen[bytes]
    with running([sys.executable, "-c", HANDLER + SCRIPT], database_url) as (process, output):
        wait_until(lambda: "written" in output.read_text(), process, output)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert names_stored(database_url) == {"of a script": 1}
