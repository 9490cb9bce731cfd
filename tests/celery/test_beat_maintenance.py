"""The store is maintained by a task that Celery beat sends."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from celery import Celery

from observatory_storage import ConfigError, StoragePool
from observatory_storage.celery import add_maintenance, flush_after_task
from observatory_storage.lifecycle.maintenance import last_runs

NAME = "observatory_storage.maintain"


@pytest.fixture
def app() -> Celery:
    return Celery("tasks", broker="memory://", set_as_current=False)


def schedule_of(app: Celery) -> dict[str, Any]:
    app.finalize()  # as a worker and beat do
    schedule: dict[str, Any] = app.conf.beat_schedule
    return schedule


def test_the_task_maintains_the_store_and_returns_the_report(
    app: Celery, pool: StoragePool
) -> None:
    report = add_maintenance(app, pool=pool).apply(kwargs={"for_secs": 60}).get()
    assert not report["is_skipped"]
    (run,) = last_runs(pool)
    assert [step["name"] for step in report["steps"]] == [step["name"] for step in run.steps]


def test_a_function_gives_the_pool_when_the_task_runs(app: Celery, pool: StoragePool) -> None:
    asked: list[StoragePool] = []

    def get_pool() -> StoragePool:
        asked.append(pool)
        return pool

    task = add_maintenance(app, pool=get_pool)
    app.finalize()
    assert asked == []
    task.apply(kwargs={"for_secs": 0}).get()
    assert asked == [pool]
    assert len(last_runs(pool)) == 1


def test_beat_sends_the_task_beside_those_of_the_application(app: Celery) -> None:
    add_maintenance(app, every_secs=120)
    own = {"task": "report", "schedule": 3600.0}
    app.conf.beat_schedule = {"own": own}
    assert schedule_of(app) == {
        "own": own,
        NAME: {
            "task": NAME,
            "schedule": 120,
            "args": (),
            "kwargs": {"for_secs": 100},
            "options": {"expires": 120},
        },
    }


def test_maintenance_is_added_to_an_application_that_is_ready(app: Celery) -> None:
    app.finalize()
    add_maintenance(app)
    assert list(schedule_of(app)) == [NAME]


def test_other_applications_do_not_get_the_task(app: Celery) -> None:
    other = Celery("other", broker="memory://", set_as_current=False)
    add_maintenance(app)
    other.finalize()
    assert NAME in app.tasks
    assert NAME not in other.tasks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_secs": 0}, "every_secs: must be a number above 0, not 0"),
        ({"every_secs": True}, "every_secs: must be a number above 0, not True"),
        ({"every_secs": float("nan")}, "every_secs: must be a number above 0, not nan"),
        ({"every_secs": "60"}, "every_secs: must be a number above 0, not '60'"),
        (
            {"pool": "postgresql://localhost"},
            "pool: must be a StoragePool, a function that returns one, or None, not str",
        ),
    ],
)
def test_invalid_arguments_are_named(app: Celery, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        add_maintenance(app, **arguments)
    assert str(raised.value) == message


def test_what_is_no_application_is_refused() -> None:
    for function in (add_maintenance, flush_after_task):
        with pytest.raises(ConfigError, match=r"^app: must be a Celery application, not str$"):
            function("tasks")


def test_a_missing_extra_says_how_to_install_it(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "celery", None)
    for function in (add_maintenance, flush_after_task):
        with pytest.raises(ConfigError, match=r"pip install 'observatory-storage\[celery\]'"):
            function(app)
