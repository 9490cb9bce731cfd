import pytest
from observatory_storage.pool import StoragePool
from observatory_storage.config import *
@pytest.fixture
def pool(database_url):
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(database_url))) as made:
        yield made
from datetime import *
from observatory_storage import CopyWriter
from observatory_storage.repositories import *
T=datetime(2026,1,1,tzinfo=UTC)
def test_x(pool):
    w=CopyWriter(pool)
    w.write_spans([dict(trace_id=f"{i//3+1:032x}",span_id=f"{i+1:016x}",name="op",service_name="s",start_time=T+timedelta(seconds=i),end_time=T+timedelta(seconds=i+1),attributes={"k":i,"gen_ai.request.model":"m"},events=[dict(name="e",timestamp=T,attributes={"ek":i})]) for i in range(30)])
    w.write_logs([dict(timestamp=T+timedelta(seconds=i),body=f"hello {i}",severity_number=9,service_name="s") for i in range(30)])
    with pool.unit_of_work() as u:
        for f in (TraceFilters(),TraceFilters(service_name="s"),TraceFilters(model="m"),TraceFilters(attributes={"ek":4}),TraceFilters(min_duration_us=1.5),TraceFilters(service_name="s",operation="op",max_duration_us=10**7,start_time=T+timedelta(seconds=10),end_time=T+timedelta(seconds=12))):
            print(f, len(u.traces.list(f)), u.traces.get_stats(f))
        print(u.traces.services(), u.traces.operations("s"), len(u.traces.get_spans(f"{1:032x}",with_events=True)))
        p=u.traces.list_spans(SpanFilters(limit=4)); n=[]
        while True:
            n+=list(p)
            if not p.next: break
            p=u.traces.list_spans(SpanFilters(limit=4),after=p.next)
        print(len(n))
        print(u.logs.count_by_level(), len(u.logs.search_text("hello 7")), u.logs.get_stats())
        t=u.logs.tail(); print(len(t), t.next)
        print(len(u.logs.tail(t.next)))
        print(u.metrics.get_cost_summary(T,T+timedelta(days=1)), u.metrics.get_latency_percentiles(T,T+timedelta(days=1)))
        print(u.traces.delete(f"{1:032x}"))
    assert 0
