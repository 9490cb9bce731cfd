"""The admin shows traces, spans and log records, and changes none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from observatory_storage import StoragePool, TraceWriter, WriterConfig
from observatory_storage.django import get_pool
from observatory_storage.django.models import Log, Span, Trace
from observatory_storage.tables import TABLES
from tests.django_app.rows import CALL, TRACE, span, write_conversation, write_traces

LISTS = ["/admin/observatory/trace/", "/admin/observatory/span/", "/admin/observatory/log/"]


@pytest.fixture(scope="module")
def staff(whole_project: None) -> Client:
    del whole_project
    return logged_in("ada", is_staff=True, is_superuser=True)


def logged_in(name: str, **values: Any) -> Client:
    client = Client()
    client.force_login(User.objects.create_user(name, **values))
    return client


@pytest.fixture
def store(whole_project: None) -> Iterator[StoragePool]:
    del whole_project
    yield get_pool()  # another one after a test has overridden settings
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")


def page(client: Client, path: str, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer
    return str(answer.content.decode())


def test_a_list_links_to_the_page_of_a_trace(staff: Client, store: StoragePool) -> None:
    write_conversation(store)
    shown = page(staff, LISTS[0])
    assert "POST /answer" in shown
    assert "assistant" in shown
    (link,) = re.findall(r'href="(/admin/observatory/trace/[0-9a-f-]{36}/change/)[^"]*"', shown)
    trace = page(staff, link)
    assert "chat large" in trace
    assert 'fill="#c0392b"' in trace  # the bar of the failed call
    assert f"/admin/observatory/span/{TRACE}:{CALL}/change/" in trace.replace("%3A", ":")


def test_the_page_of_a_span_has_its_attributes(staff: Client, store: StoragePool) -> None:
    write_conversation(store)
    write_traces(store, 1)
    with_same_id = span(trace_id="f" * 32, span_id=CALL, name="another of the same id")
    with TraceWriter(store) as writer:
        writer.write_span(with_same_id)
    shown = page(staff, f"/admin/observatory/span/{TRACE}:{CALL}/change/")
    assert "why is the sky &lt;b&gt;blue&lt;/b&gt;" in shown
    assert "another of the same id" not in shown
    assert "no answer" in shown
    assert f">{TRACE}</a>" in shown
    for unknown in (f"{TRACE}:{'9' * 16}", "nothing", f"{'0' * 32}:{CALL}"):
        assert staff.get(f"/admin/observatory/span/{unknown}/change/").status_code == 302


def test_log_records_have_links_to_their_traces(staff: Client, store: StoragePool) -> None:
    write_conversation(store)
    shown = page(staff, LISTS[2])
    assert "the model gave up" in shown
    assert "/admin/observatory/trace/" in shown
    record = Log.objects.get()
    assert "the model gave up" in page(staff, f"/admin/observatory/log/{record.pk}/change/")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "step 3"}, {"step 3"}),
        ({"q": "STEP 4"}, {"step 4"}),
        ({"q": f"{5:032x}"}, {"step 4"}),
        ({"status": "error"}, set()),
        ({"status": "unset"}, {f"step {index}" for index in range(6)}),
        ({"service_name": "assistant"}, {f"step {index}" for index in range(6)}),
        ({"service_name": "another"}, set()),
        ({"period": "nonsense"}, {f"step {index}" for index in range(6)}),
    ],
)
@pytest.mark.parametrize("path", LISTS[:2])
def test_lists_are_searched_and_filtered(
    path: str, query: dict[str, str], found: set[str], staff: Client, store: StoragePool
) -> None:
    write_traces(store, 6)
    assert set(re.findall(r"step \d", results(page(staff, path, **query)))) == found


@pytest.mark.parametrize(
    "query",
    [
        {"p": "9" * 25},
        {"p": "9" * 5000},
        {"status": "nonsense"},
        {"status": "error\0"},
        {"service_name": "assistant\0"},
        {"name": "step\0"},
        {"trace_id": "step"},
        {"start_time": "99999-01-01"},
    ],
)
@pytest.mark.parametrize("path", LISTS[:2])
def test_malformed_parameters_lead_back_to_the_list(
    path: str, query: dict[str, str], staff: Client, store: StoragePool
) -> None:
    write_conversation(store)
    answer = staff.get(path, query)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{path}?e=1")
    assert 'id="changelist"' in page(staff, f"{path}?e=1")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("path", [*LISTS, f"/admin/observatory/span/{TRACE}:{CALL}"])
def test_a_malformed_key_is_that_of_no_row(path: str, staff: Client) -> None:
    assert staff.get(f"{path}%00/change/").status_code == 302
    assert page(staff, path.partition(f"{TRACE}")[0], q="step\0")


def results(shown: str) -> str:
    """The table of results of a page."""
    return shown.partition('id="result_list"')[2]


def test_lists_begin_with_the_last_week_and_an_id_is_of_any_time(
    staff: Client, store: StoragePool
) -> None:
    with TraceWriter(store) as writer:
        writer.write_span(span(minutes_ago=10 * 24 * 60, name="long ago"))
        writer.write_span(span(minutes_ago=90, name="today", trace_id="1" * 32))
    assert "long ago" not in page(staff, LISTS[0])
    assert "today" in page(staff, LISTS[0])
    assert "today" not in page(staff, LISTS[0], period="hour")
    for query in ({"period": "month"}, {"period": "any"}, {"q": TRACE}):
        assert "long ago" in page(staff, LISTS[0], **query)


def test_pages_follow_each_other_without_counting(staff: Client, store: StoragePool) -> None:
    write_traces(store, 120)
    with CaptureQueriesContext(connection) as queries:
        first = page(staff, LISTS[0])
    assert not [query for query in queries if "COUNT(" in query["sql"].upper()]
    assert "LIMIT 51" in " ".join(query["sql"] for query in queries)
    names = [re.findall(r"step \d+", results(first))]
    links = re.findall(r'<a href="([^"]*)">older</a>', first)
    while links:
        shown = page(staff, LISTS[0] + links[0].replace("&amp;", "&"))
        names.append(re.findall(r"step \d+", results(shown)))
        assert ">newer</a>" in shown
        links = re.findall(r'<a href="([^"]*)">older</a>', shown)
    assert [len(each) for each in names] == [50, 50, 20]
    assert list(chain(*names)) == [f"step {index}" for index in range(120)]
    assert staff.get(LISTS[0], {"p": "9"}).status_code == 302


def test_the_newest_rows_are_read_by_an_index(store: StoragePool) -> None:
    write_traces(store, 200)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SET enable_seqscan = off")
    plan = Trace.objects.order_by("-start_time", "-trace_id")[:51].explain()
    assert "ix_traces_start_time" in plan
    assert "Sort" not in plan
    spans = Span.objects.order_by("-start_time")[:51].explain()
    assert "start_time_idx" in spans
    with connection.cursor() as cursor:
        cursor.execute("RESET enable_seqscan")


@pytest.mark.parametrize("path", LISTS)
def test_nothing_can_be_added_changed_or_deleted(
    path: str, staff: Client, store: StoragePool
) -> None:
    write_conversation(store)
    assert staff.get(f"{path}add/").status_code == 403
    key = {"trace": Trace.objects.get().pk, "log": Log.objects.get().pk}
    name = path.split("/")[3]
    row = f"{path}{key.get(name, f'{TRACE}:{CALL}')}/"
    assert staff.post(f"{row}change/", {"name": "changed"}).status_code == 403
    assert staff.post(f"{row}delete/", {"post": "yes"}).status_code == 403
    assert "Save" not in page(staff, f"{row}change/")
    for stored in (Trace.objects.get(), Log.objects.get()):
        for change in (stored.save, stored.delete):
            with pytest.raises(TypeError, match="is a view of the store"):
                change()


def test_only_staff_with_the_permission_may_look(store: StoragePool) -> None:
    write_conversation(store)
    nobody = Client().get(LISTS[0])
    assert (nobody.status_code, nobody.url.partition("?")[0]) == (302, "/admin/login/")
    assert logged_in("bob").get(LISTS[0]).status_code == 302
    carla = logged_in("carla", is_staff=True)
    assert carla.get(LISTS[0]).status_code == 403
    assert "Observatory" not in page(carla, "/admin/")
    User.objects.get(username="carla").user_permissions.add(
        Permission.objects.get(codename="view_trace")
    )
    assert "POST /answer" in page(carla, LISTS[0])
    assert carla.get(LISTS[1]).status_code == 403
    kinds = Permission.objects.filter(content_type__app_label="observatory")
    assert {each.codename for each in kinds} == {"view_trace", "view_span", "view_log"}


@pytest.mark.usefixtures("store")
def test_the_schema_is_that_of_the_settings(staff: Client) -> None:
    assert "observatory_traces" in str(Trace.objects.all().query)
    assert Trace._meta.db_table == '"public"."observatory_traces"'
    with override_settings(OBSERVATORY_SCHEMA=None):
        assert Trace._meta.db_table == '"observatory"."observatory_traces"'
        with override_settings(OBSERVATORY_DB_SCHEMA="by_variable"):
            assert Trace._meta.db_table == '"by_variable"."observatory_traces"'
            assert get_pool().schema == "by_variable"
    with override_settings(OBSERVATORY_SCHEMA='odd "name"'):
        assert '"odd ""name"""."observatory_traces"."name"' in str(Trace.objects.all().query)
        answer = staff.get(LISTS[0], follow=True)
        assert "The store cannot be read. Is it migrated?" in answer.content.decode()
    assert list(Trace.objects.all()) == []


@pytest.mark.usefixtures("store")
def test_a_store_outside_of_django_s_databases_is_not_shown(staff: Client) -> None:
    with override_settings(OBSERVATORY_DATABASE_URL="postgresql://localhost/elsewhere"):
        assert staff.get(LISTS[0]).status_code == 403
        assert "Observatory" not in page(staff, "/admin/")


def test_whole_values_of_a_span_are_shown_if_the_view_has_previews(
    staff: Client, store: StoragePool
) -> None:
    text = " ".join(f"word{index}" for index in range(2000))
    with TraceWriter(store, WriterConfig(payloads="compressed")) as writer:
        writer.write_span(span(span_id=CALL, attributes={"gen_ai.prompt": text}))
    assert Span.objects.get().payload_digests
    assert text in page(staff, f"/admin/observatory/span/{TRACE}:{CALL}/change/")
    with store.unit_of_work() as uow:
        uow.traces.delete(TRACE)
        uow.commit()
