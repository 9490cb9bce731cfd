"""A run of maintenance that is killed at any statement is completed by the next."""

from __future__ import annotations

import random
import threading
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tests.lifecycle import killed_maintenance as killed
from tests.lifecycle.days import NOW
from tests.lifecycle.pools import kept_pool
from tests.servers import Server


def check_kills(server: Server, url: str, source: random.Random, kills: int) -> list[int]:
    """Kill runs at random statements; compare the end with that of an undisturbed run."""
    killed.write_a_week(url)
    template = str(conninfo_to_dict(url)["dbname"])
    with server.database(template) as undisturbed:
        count = killed.statements_of_a_run(undisturbed)
        expected = killed.end_state(undisturbed)
    statements: list[int] = []
    with_kills: list[dict[str, Any]] = []
    while len(statements) < kills:
        with server.database(template) as disturbed:
            for _ in range(min(5, kills - len(statements))):
                statement = source.randint(1, count)
                killed.kill_at(disturbed, statement)
                statements.append(statement)
            with_kills.append(killed.end_state(disturbed))
    for state in with_kills:
        for part, value in expected.items():
            assert state[part] == value, (part, statements)
    return statements


def test_the_end_is_the_same_after_kills(postgres_server: Server, database_url: str) -> None:
    check_kills(postgres_server, database_url, random.Random(5), kills=3)


def test_two_runs_at_once_do_no_harm(postgres_server: Server, database_url: str) -> None:
    killed.write_a_week(database_url)
    template = str(conninfo_to_dict(database_url)["dbname"])
    with postgres_server.database(template) as alone, postgres_server.database(template) as shared:
        expected = killed.end_state(alone)
        with kept_pool(shared, days=killed.KEPT_DAYS) as pool:
            threads = [threading.Thread(target=pool.maintain, kwargs={"now": NOW}) for _ in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert killed.end_state(shared) == expected
