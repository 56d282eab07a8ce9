import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app import db
from app.models import Agent
from app.web import application

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


async def names(sessions: Sessions, slug: str) -> list[str]:
    async with sessions(info={"binding": db.tenant(slug)}) as session:
        return list(await session.scalars(select(Agent.name).order_by(Agent.name)))


async def test_requests_of_two_tenants_in_one_transaction(sessions: Sessions) -> None:
    transport = ASGITransport(application(sessions))
    for slug in ("acme", "globex"):
        async with AsyncClient(transport=transport, base_url=f"http://{slug}.platform.example") as client:
            assert (await client.put(f"/agents/{slug}: Tester", json={})).status_code == 200
            assert (await client.get("/agents")).json() == [f"{slug}: Tester"]
    assert await names(sessions, "acme") == ["acme: Tester"]


async def test_the_test_before_has_left_nothing(sessions: Sessions) -> None:
    assert await names(sessions, "acme") == []
    assert await names(sessions, "globex") == []


async def test_a_refused_statement_undoes_its_session_only(sessions: Sessions) -> None:
    async with sessions(info={"binding": db.tenant("acme")}) as session:
        session.add(Agent(name="acme: Kept"))
        await session.commit()
    transport = ASGITransport(application(sessions))
    async with AsyncClient(transport=transport, base_url="http://hooli.platform.example") as client:
        orders = [{"name": f"hooli: Flow {n}", "email": "ada@hooli.example"} for n in (1, 2, 3)]
        assert [(await client.post("/workflows", json=order)).status_code for order in orders] == [201, 201, 402]
        assert (await client.get("/workflows")).json() == ["hooli: Flow 1", "hooli: Flow 2"]
    assert await names(sessions, "acme") == ["acme: Kept"]


async def test_nothing_is_bound_after_a_session(sessions: Sessions) -> None:
    assert await names(sessions, "acme") == []
    async with sessions() as session:
        with pytest.raises(ProgrammingError, match="no tenant is bound in this transaction"):
            await session.scalars(select(Agent))


async def test_a_request_that_fails_half_way_is_undone(sessions: Sessions) -> None:
    async def fails_half_way(request: Request) -> Response:
        session: AsyncSession = request.state.session
        session.add(Agent(name="acme: Half"))
        await session.flush()
        raise HTTPException(404)

    app = application(sessions)
    app.router.routes.append(Route("/half-way", fails_half_way))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://acme.platform.example") as client:
        assert (await client.get("/half-way")).status_code == 404
        assert (await client.get("/agents")).json() == []
