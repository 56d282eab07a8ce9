"""What pg_tenancy promises, kept by an application on Django. Stops, with status 1, at the first promise that does not hold."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import httpx
import psycopg
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import Count, Sum

from platform_site.wsgi import application  # sets Django up

# isort: split
from agents.bulk import import_agents
from agents.models import Agent, Execution, Note, User, Workflow
from tenancy.binding import BindingRefused, bound, sqlstate, tenant


def client_of(slug: str, **headers: str) -> httpx.Client:
    transport = httpx.WSGITransport(application)
    return httpx.Client(transport=transport, base_url=f"http://{slug}.platform.example", headers=headers)


def operator(statement: str, *values: str) -> None:
    with psycopg.connect(os.environ["OPERATOR_URL"], autocommit=True) as session:
        session.execute(statement.encode(), values)


def promise(words: str, holds: bool) -> None:
    if not holds:
        raise SystemExit(f"NOT AS PROMISED: {words}")
    print("   ✓", words, flush=True)


def named_for(slug: str, names: list[str]) -> bool:
    return len(names) > 0 and all(name.startswith(f"{slug}: ") for name in names)


def refused(work: Callable[[], Any]) -> str:
    """The SQLSTATE with which the database refuses the work; none if it does not."""
    try:
        with transaction.atomic():
            work()
    except DatabaseError as error:
        return sqlstate(error)
    return "none"


def raw(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def requests(acme: httpx.Client, globex: httpx.Client) -> None:
    for slug, client in (("acme", acme), ("globex", globex)):
        for name in ("Reader", "Writer"):
            client.put(f"/agents/{slug}: {name}", json={"tools": ["search"]}).raise_for_status()
    seen = {slug: client.get("/agents").json() for slug, client in (("acme", acme), ("globex", globex))}
    promise(
        "two requests of two tenants through one middleware, and each gets its own rows",
        seen == {slug: [f"{slug}: Reader", f"{slug}: Writer"] for slug in ("acme", "globex")},
    )
    promise("a tenant that is not there is 404", client_of("umbrella").get("/agents").status_code == 404)


def models() -> None:
    with bound(tenant("acme")):
        ada = User.objects.get()
        workflow = Workflow.objects.create(name="acme: Triage", created_by=ada)
        [(current,)] = raw("SELECT current_tenant()")
        promise("a new object has its tenant from the database", workflow.tenant_id == current)

    with bound(tenant("acme")):
        found = Workflow.objects.get(pk=workflow.pk)
        found.description = "Sorts what comes in"
        found.save()
        found.executions.create(task_count=3)
        Workflow.objects.create(name="acme: Extra", created_by=ada).delete()

    with bound(tenant("globex")):
        promise("another tenant does not find it", not Workflow.objects.filter(pk=workflow.pk).exists())
        moved = refused(found.save)
        promise("an object of one tenant cannot be saved in another's transaction: 42501", moved == "42501")

    with bound(tenant("acme")):
        left = list(Workflow.objects.values_list("name", "description"))
        promise("created, read, changed and deleted, and no statement named the tenant", left == [("acme: Triage", "Sorts what comes in")])


def upserts(acme: httpx.Client) -> None:
    first, second = [acme.put("/agents/acme: Reader", json=config).raise_for_status().json() for config in ({"v": 1}, {"v": 2})]
    promise(
        "bulk_create(update_conflicts) on (tenant_id, name): one row, the last values",
        first["id"] == second["id"] and second["config"] == {"v": 2},
    )


def bulk() -> None:
    with bound(tenant("acme")):
        count = import_agents((f"acme: Agent {n}", {"n": n}) for n in range(1, 1001))
        imported = list(Agent.objects.filter(name__startswith="acme: Agent ").iterator(chunk_size=100))  # a cursor of the server
        ids, tenants = {agent.id for agent in imported}, {agent.tenant_id for agent in imported}
        promise("1 000 rows by COPY into a staging table, and on in the same transaction", count == len(ids) == 1000 and len(tenants) == 1)
        promise("the staging table is empty again", raw("SELECT count(*) FROM agents_import") == [(0,)])
        copied = refused(lambda: raw("COPY agents (name) FROM STDIN"))
        promise("COPY into the protected table itself is refused: 0A000", copied == "0A000")


def eager() -> None:
    with bound(tenant("globex")):
        ada = User.objects.get()
        made = Workflow.objects.bulk_create(Workflow(name=f"globex: Flow {n}", created_by=ada) for n in range(1, 6))
        Execution.objects.bulk_create(Execution(workflow=flow, task_count=t) for n, flow in enumerate(made, 1) for t in range(n))
    with bound(tenant("globex")):
        query = Workflow.objects.select_related("created_by").prefetch_related("executions").order_by("name")
        found = [(flow.name, flow.created_by.email, len(flow.executions.all())) for flow in query]
    promise(
        "workflows with their author (select_related) and executions (prefetch_related): five, all of one tenant",
        found == [(f"globex: Flow {n}", "ada@globex.example", n) for n in range(1, 6)],
    )
    with bound(tenant("globex")):
        counted = Workflow.objects.annotate(runs=Count("executions"), tasks=Sum("executions__task_count")).order_by("name")
        promise(
            "annotate() groups by the model", [(flow.runs, flow.tasks) for flow in counted] == [(1, 0), (2, 1), (3, 3), (4, 6), (5, 10)]
        )


def migration() -> None:
    call_command("migrate", "agents", "0002", database="migrator", verbosity=0)
    with bound(tenant("globex")):  # as long as the code of before does
        Workflow.objects.filter(name="globex: Flow 1").update(status="active")
    call_command("migrate", database="migrator", verbosity=0)
    call_command("makemigrations", check_changes=True, dry_run=True, stdout=StringIO())  # exits where models and migrations differ
    print("   ✓ migrate: down to before notes and priority, and up again; no migration is missing", flush=True)

    for slug in ("acme", "globex"):
        with bound(tenant(slug)):
            workflows = list(Workflow.objects.all())
            backfilled = [flow.name for flow in workflows if flow.priority == (1 if flow.status == "active" else 0)]
            promise(f"the new column is filled in: {slug}", named_for(slug, backfilled) and len(backfilled) == len(workflows))
            workflows[0].notes.create(body=f"{slug}: look at this")
            Workflow.objects.filter(pk=workflows[0].pk).update(priority=5)
            notes = list(Note.objects.values_list("body", flat=True))
            promise(f"the new table is protected: {slug} reads its own note", notes == [f"{slug}: look at this"])

    with bound(tenant("acme")):
        other = Workflow.objects.values_list("pk", flat=True)[0]
    with bound(tenant("globex")):
        stolen = refused(lambda: Note.objects.create(workflow_id=other, body="globex: mole"))
        promise("a note cannot refer to another tenant's workflow: 23503", stolen == "23503")


def api_keys() -> None:
    """In a process of its own, as the API server is: it has its own settings, and a role that cannot choose."""
    with bound(tenant("acme")):
        [(key,)] = raw("SELECT api_key FROM create_api_key('nightly export', '{agents:read}')")
    settings = os.environ | {"DJANGO_SETTINGS_MODULE": "platform_site.settings_api"}
    ended = subprocess.run([sys.executable, "story_api.py"], input=key, text=True, env=settings)
    if ended.returncode != 0:
        raise SystemExit(ended.returncode)


def limit() -> None:
    with client_of("hooli") as client:
        orders = [{"name": f"hooli: Flow {n}", "email": "ada@hooli.example"} for n in (1, 2, 3)]
        answers = [client.post("/workflows", json=order) for order in orders]
        promise("the third active workflow of the free plan is 402", [answer.status_code for answer in answers] == [201, 201, 402])
        promise("with the reason", answers[2].json() == {"error": "limit reached for concurrent_workflows (2)"})
        promise("and nothing of it is there", client.get("/workflows").json() == ["hooli: Flow 1", "hooli: Flow 2"])
    with bound(tenant("hooli")):
        try:
            with transaction.atomic():  # a savepoint: what is bound stays bound
                Workflow.objects.create(name="hooli: Flow 4", status="active", created_by=User.objects.get())
            held = False
        except OperationalError as error:
            held = isinstance(error.__cause__, psycopg.errors.ProgramLimitExceeded) and error.__cause__.sqlstate == "54000"
        promise("the exception is OperationalError, its cause psycopg.errors.ProgramLimitExceeded, 54000", held)
        promise("a savepoint undoes it, and the transaction goes on", Workflow.objects.count() == 2)


def suspension(globex: httpx.Client) -> None:
    operator("SELECT suspend_tenant(id, 'invoice 1042 is overdue') FROM tenancy.tenants WHERE slug = %s", "globex")
    try:
        statuses = [globex.get("/agents").status_code for _ in range(10)]  # more than the pool has connections
        promise("a suspended tenant is 403", statuses == [403] * 10)
        try:
            with bound(tenant("globex")):
                state = "none"
        except BindingRefused as error:
            state = error.sqlstate
        promise("the exception is that of the bind, 42501", state == "42501")
    finally:
        operator("SELECT resume_tenant(id) FROM tenancy.tenants WHERE slug = %s", "globex")
    promise("resumed, it works again", named_for("globex", globex.get("/agents").json()))


def crowd() -> None:
    def visitor(slug: str, number: int) -> bool:
        name = f"{slug}: Visitor {number}"
        with client_of(slug) as client:
            for turn in range(15):
                put = client.put(f"/agents/{name}", json={"turn": turn}).raise_for_status().json()
                seen = client.get("/agents").raise_for_status().json()
                if not (named_for(slug, seen) and name in seen and put["config"] == {"turn": turn}):
                    return False
        return True

    with ThreadPoolExecutor(16) as threads:
        visits = [threads.submit(visitor, slug, number) for number in range(8) for slug in ("acme", "globex")]
        kept = all(visit.result() for visit in visits)
    promise("480 requests by 16 threads of two tenants over a pool of 3: each sees its own rows only", kept)


def raw_sql() -> None:
    with bound(tenant("globex")):
        names = [agent.name for agent in Agent.objects.raw("SELECT * FROM agents")]
        promise("raw SQL that forgets the filter returns the bound tenant's rows only", named_for("globex", names))
    promise("unbound it is refused: 42501", refused(lambda: raw("SELECT * FROM agents")) == "42501")
    promise("and so is a query of a model", refused(Agent.objects.first) == "42501")


def explicit_null() -> None:
    with bound(tenant("acme")):
        agent = Agent.objects.create(name="acme: Default's")
        promise("the tenant of a new object is DEFAULT in the INSERT, so the default holds", agent.tenant_id is not None)
        state = refused(lambda: Agent.objects.create(name="acme: Null", tenant_id=None))
        promise("an explicit None is NULL, and refused: 42501", state == "42501")


def validation() -> None:
    with bound(tenant("acme")):
        try:
            Agent(name="acme: Reader").full_clean()
            holds = False
        except ValidationError as error:
            holds = error.messages == ["Agent with this Tenant id and Name already exists."]
        promise("a form's validation finds the name taken, in this tenant", holds)
        Agent(name="globex: Reader").full_clean()
        print("   ✓ and knows nothing of the other's names", flush=True)


def story() -> None:
    with client_of("acme") as acme, client_of("globex") as globex:
        requests(acme, globex)
        models()
        upserts(acme)
        bulk()
        eager()
        migration()
        api_keys()
        limit()
        suspension(globex)
        crowd()
        raw_sql()
        explicit_null()
        validation()
    connection.close_pool()


if __name__ == "__main__":
    story()
