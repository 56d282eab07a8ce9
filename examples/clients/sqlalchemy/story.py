"""What pg_tenancy promises, kept by an application on SQLAlchemy. Stops, with status 1, at the first promise that does not hold."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from httpx import ASGITransport, AsyncClient
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload
from starlette.applications import Starlette

from app import db
from app.bulk import import_agents
from app.models import Agent, Execution, Note, User, Workflow
from app.web import application, by_api_key

engine = db.engine(os.environ["APP_URL"])
api_engine = db.engine(os.environ["CLIENT_URL"])
sessions = db.sessions(engine)


def session_of(slug: str) -> AsyncSession:
    return sessions(info={"binding": db.tenant(slug)})


def client_of(app: Starlette, slug: str = "api", **headers: str) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url=f"http://{slug}.platform.example", headers=headers)


def operator(statement: str, *values: str) -> None:
    with psycopg.connect(os.environ["OPERATOR_URL"], autocommit=True) as connection:
        connection.execute(statement.encode(), values)


def promise(words: str, holds: bool) -> None:
    if not holds:
        raise SystemExit(f"NOT AS PROMISED: {words}")
    print("   ✓", words, flush=True)


def named_for(slug: str, names: list[str]) -> bool:
    return len(names) > 0 and all(name.startswith(f"{slug}: ") for name in names)


async def refused(session: AsyncSession, work: Any) -> str:
    """The SQLSTATE with which the database refuses the statement; none if it does not."""
    async with session:
        try:
            await session.execute(work)
        except DBAPIError as error:
            return db.sqlstate(error)
    return "none"


async def requests(acme: AsyncClient, globex: AsyncClient) -> None:
    for slug, client in (("acme", acme), ("globex", globex)):
        for name in ("Reader", "Writer"):
            (await client.put(f"/agents/{slug}: {name}", json={"tools": ["search"]})).raise_for_status()
    seen = {slug: (await client.get("/agents")).json() for slug, client in (("acme", acme), ("globex", globex))}
    promise(
        "two requests of two tenants through one middleware, and each gets its own rows",
        seen == {slug: [f"{slug}: Reader", f"{slug}: Writer"] for slug in ("acme", "globex")},
    )
    promise("a tenant that is not there is 404", (await client_of(application(sessions), "umbrella").get("/agents")).status_code == 404)


async def models() -> None:
    async with session_of("acme") as session:
        ada = (await session.scalars(select(User))).one()
        workflow = Workflow(name="acme: Triage", created_by=ada)
        session.add(workflow)
        await session.commit()
        key = workflow.id

    async with session_of("acme") as session:
        found = await session.get_one(Workflow, key)
        bound = await session.scalar(select(text("current_tenant()")))
        promise("a new object has its tenant from the database, and is found by its id alone", found.tenant_id == bound)
        found.description = "Sorts what comes in"
        session.add(Execution(workflow=found, task_count=3))
        await session.commit()

    async with session_of("globex") as session:
        gone = await session.get(Workflow, key)
        promise("another tenant does not find it", gone is None)

    async with session_of("acme") as session:
        extra = Workflow(name="acme: Extra", created_by=await session.get_one(User, ada.id))
        session.add(extra)
        await session.commit()
        await session.delete(extra)
        await session.commit()
        left = [(workflow.name, workflow.description) for workflow in await session.scalars(select(Workflow))]
        promise("created, read, changed and deleted, and no statement named the tenant", left == [("acme: Triage", "Sorts what comes in")])


async def upserts(acme: AsyncClient) -> None:
    first, second = [(await acme.put("/agents/acme: Reader", json=config)).raise_for_status().json() for config in ({"v": 1}, {"v": 2})]
    promise(
        "on_conflict_do_update on (tenant_id, name): one row, the last values",
        first["id"] == second["id"] and second["config"] == {"v": 2},
    )


async def bulk() -> None:
    async with session_of("acme") as session:
        count = await import_agents(session, ((f"acme: Agent {n}", {"n": n}) for n in range(1, 1001)))
        await session.commit()
        imported = list(await session.scalars(select(Agent).where(Agent.name.startswith("acme: Agent "))))
        ids, tenants = {agent.id for agent in imported}, {agent.tenant_id for agent in imported}
        promise("1 000 rows by COPY into a staging table, and on in the same transaction", count == len(ids) == 1000 and len(tenants) == 1)
        promise("the staging table is empty again", await session.scalar(text("SELECT count(*) FROM agents_import")) == 0)
    statements: list[str] = []
    record = event.listens_for(engine.sync_engine, "before_cursor_execute")(lambda *of: statements.append(of[2]))
    async with session_of("acme") as session:
        session.add_all(Agent(name=f"acme: Object {n}") for n in range(100))
        await session.flush()
        event.remove(engine.sync_engine, "before_cursor_execute", record)
        promise("100 objects are one INSERT, behind the bind", len(statements) == 2)
    copied = await refused(session_of("acme"), text("COPY agents (name) FROM STDIN"))
    promise("COPY into the protected table itself is refused: 0A000", copied == "0A000")


async def eager() -> None:
    async with session_of("globex") as session:
        ada = (await session.scalars(select(User))).one()
        session.add_all(
            Workflow(name=f"globex: Flow {n}", created_by=ada, executions=[Execution(task_count=t) for t in range(n)]) for n in range(1, 6)
        )
        await session.commit()
    async with session_of("globex") as session:
        query = select(Workflow).options(joinedload(Workflow.created_by), selectinload(Workflow.executions)).order_by(Workflow.name)
        found = [(w.name, w.created_by.email, len(w.executions)) for w in await session.scalars(query)]
    promise(
        "workflows with their author (joined) and executions (select in): five, all of one tenant",
        found == [(f"globex: Flow {n}", "ada@globex.example", n) for n in range(1, 6)],
    )


async def migration() -> None:
    alembic = Config(Path(__file__).with_name("alembic.ini"))
    await asyncio.to_thread(command.downgrade, alembic, "0001")
    async with session_of("globex") as session:  # as long as the code of before does
        await session.execute(update(Workflow).where(Workflow.name == "globex: Flow 1").values(status="active"))
        await session.commit()
    await asyncio.to_thread(command.upgrade, alembic, "head")
    await asyncio.to_thread(command.check, alembic)  # raises where the classes and the database differ
    print("   ✓ alembic: down to before notes and priority, and up again; the classes and the database agree", flush=True)

    for slug in ("acme", "globex"):
        async with session_of(slug) as session:
            workflows = list(await session.scalars(select(Workflow)))
            backfilled = [w.name for w in workflows if w.priority == (1 if w.status == "active" else 0)]
            promise(f"the new column is filled in: {slug}", named_for(slug, backfilled) and len(backfilled) == len(workflows))
            workflows[0].priority = 5
            session.add(Note(workflow_id=workflows[0].id, body=f"{slug}: look at this"))
            await session.commit()
            notes = list(await session.scalars(select(Note.body)))
            promise(f"the new table is protected: {slug} reads its own note", notes == [f"{slug}: look at this"])

    async with session_of("acme") as session:
        other = (await session.scalars(select(Workflow.id))).first()
    stolen = await refused(session_of("globex"), insert(Note).values(workflow_id=other, body="globex: mole"))
    promise("a note cannot refer to another tenant's workflow: 23503", stolen == "23503")


async def api_keys() -> None:
    async with session_of("acme") as session:
        key = await session.scalar(text("SELECT api_key FROM create_api_key('nightly export', '{agents:read}')"))
        await session.commit()
    api = application(db.sessions(api_engine), by_api_key)
    async with client_of(api, authorization=f"Bearer {key}") as client:
        agents = (await client.get("/agents")).raise_for_status().json()
        promise("an API key is its tenant: 1 002 agents of Acme", named_for("acme", agents) and len(agents) == 1002)
    async with client_of(api, authorization="Bearer ptk_noise") as client:
        answer = await client.get("/agents")
        promise("a wrong key is 401", (answer.status_code, answer.json()) == (401, {"error": "invalid API key"}))
    async with client_of(api) as client:
        promise("and so is none", (await client.get("/agents")).status_code == 401)
    chosen = await refused(db.sessions(api_engine)(), text("SELECT set_tenant_by_slug('globex')"))
    promise("the API server cannot choose a tenant: 42501", chosen == "42501")


async def limit() -> None:
    async with client_of(application(sessions), "hooli") as client:
        orders = [{"name": f"hooli: Flow {n}", "email": "ada@hooli.example"} for n in (1, 2, 3)]
        answers = [await client.post("/workflows", json=order) for order in orders]
        promise("the third active workflow of the free plan is 402", [answer.status_code for answer in answers] == [201, 201, 402])
        promise("with the reason", answers[2].json() == {"error": "limit reached for concurrent_workflows (2)"})
        promise("and nothing of it is there", (await client.get("/workflows")).json() == ["hooli: Flow 1", "hooli: Flow 2"])
    async with session_of("hooli") as session:
        ada = (await session.scalars(select(User))).one()
        session.add(Workflow(name="hooli: Flow 4", status="active", created_by=ada))
        try:
            await session.flush()
            held = False
        except DBAPIError as error:
            held = isinstance(error.orig, psycopg.errors.ProgramLimitExceeded) and error.orig.sqlstate == "54000"
        promise("the driver's exception is psycopg.errors.ProgramLimitExceeded, 54000", held)


async def suspension(globex: AsyncClient) -> None:
    operator("SELECT suspend_tenant(id, 'invoice 1042 is overdue') FROM tenancy.tenants WHERE slug = %s", "globex")
    try:
        answers = [await globex.get("/agents") for _ in range(10)]  # more than the pool has connections
        promise("a suspended tenant is 403", [answer.status_code for answer in answers] == [403] * 10)
        try:
            async with session_of("globex") as session:
                await session.scalars(select(Agent))
            state = "none"
        except db.BindingRefused as error:
            state = error.sqlstate
        promise("the exception is that of the bind, 42501", state == "42501")
    finally:
        operator("SELECT resume_tenant(id) FROM tenancy.tenants WHERE slug = %s", "globex")
    promise("resumed, it works again", named_for("globex", (await globex.get("/agents")).json()))


async def crowd(acme: AsyncClient, globex: AsyncClient) -> None:
    async def visitor(slug: str, client: AsyncClient, number: int) -> bool:
        for turn in range(15):
            name = f"{slug}: Visitor {number}"
            put = (await client.put(f"/agents/{name}", json={"turn": turn})).raise_for_status().json()
            seen = (await client.get("/agents")).raise_for_status().json()
            if not (named_for(slug, seen) and name in seen and put["config"] == {"turn": turn}):
                return False
        return True

    async def impatient(number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(number / 20):
                await (acme if number % 2 else globex).get("/agents")

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(impatient(number))
        tasks = [group.create_task(visitor(slug, client, n)) for n in range(8) for slug, client in (("acme", acme), ("globex", globex))]
    promise("480 requests by 16 tasks of two tenants over a pool of 3: each sees its own rows only", all(task.result() for task in tasks))
    promise("40 more gave up waiting, and no connection is left in use", engine.pool.checkedout() == 0)  # type: ignore[attr-defined]


async def raw_sql() -> None:
    async with session_of("globex") as session:
        names = await session.scalars(text("SELECT name FROM agents"))
        promise("raw SQL that forgets the filter returns the bound tenant's rows only", named_for("globex", list(names)))
    promise("unbound it is refused: 42501", await refused(sessions(), text("SELECT * FROM agents")) == "42501")


async def explicit_null() -> None:
    async with session_of("acme") as session:
        agent = Agent(tenant_id=None, name="acme: Nobody's")
        session.add(agent)
        await session.flush()
        promise("an attribute that is None is left out of the statement, so the default holds", agent.tenant_id is not None)
    state = await refused(session_of("acme"), insert(Agent).values(tenant_id=None, name="acme: Null"))
    promise("an explicit NULL, as insert() writes it, is refused: 42501", state == "42501")


async def story() -> None:
    app = application(sessions)
    async with client_of(app, "acme") as acme, client_of(app, "globex") as globex:
        await requests(acme, globex)
        await models()
        await upserts(acme)
        await bulk()
        await eager()
        await migration()
        await api_keys()
        await limit()
        await suspension(globex)
        await crowd(acme, globex)
        await raw_sql()
        await explicit_null()
    await engine.dispose()
    await api_engine.dispose()


if __name__ == "__main__":
    asyncio.run(story())
