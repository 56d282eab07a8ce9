"""The application. One middleware gives each request a session, bound to its tenant, and ends the transaction before it answers."""

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import db
from app.models import Agent, User, Workflow

# What a refused bind means, and what the statements after it may run into. Anything else is a bug: 500.
AT_BIND = {"28000": 401, "42501": 403, "P0002": 404, "53400": 429, "55000": 503}
LATER = {"54000": 402, "53400": 429, "25006": 403, "23505": 409}


class TenantMiddleware:
    def __init__(self, app: ASGIApp, sessions: async_sessionmaker[AsyncSession], who: Callable[[Request], db.Binding]) -> None:
        self.app = app
        self.sessions = sessions
        self.who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async with self.sessions(info={"binding": self.who(Request(scope))}) as session:

            async def end_transaction_first(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await (session.commit() if message["status"] < 400 else session.rollback())
                await send(message)

            scope.setdefault("state", {})["session"] = session
            await self.app(scope, receive, end_transaction_first)


async def refused_bind(request: Request, error: Exception) -> Response:
    assert isinstance(error, db.BindingRefused)
    return refusal(AT_BIND.get(error.sqlstate), error, str(error))


async def refused_statement(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    return refusal(LATER.get(db.sqlstate(error)), error, db.message(error))


def refusal(status: int | None, error: Exception, message: str) -> Response:
    if status is None:
        raise error
    return JSONResponse({"error": message}, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def by_host(request: Request) -> db.Binding:
    """acme.platform.example is Acme. One with log-in takes the tenant from its signed session, and passes the user too."""
    return db.tenant((request.url.hostname or "").partition(".")[0])


def by_api_key(request: Request) -> db.Binding:
    return db.api_key(request.headers.get("authorization", "").removeprefix("Bearer "))


async def list_agents(request: Request) -> Response:
    session: AsyncSession = request.state.session
    return JSONResponse(list(await session.scalars(select(Agent.name).order_by(Agent.name))))


async def put_agent(request: Request) -> Response:
    """Makes an agent, or changes the one of this name: of this tenant, as the key is (tenant_id, name)."""
    session: AsyncSession = request.state.session
    row = insert(Agent).values(name=request.path_params["name"], config=await request.json())
    row = row.on_conflict_do_update(index_elements=["tenant_id", "name"], set_={"config": row.excluded.config})
    agent = (await session.scalars(row.returning(Agent), execution_options={"populate_existing": True})).one()
    return JSONResponse({"id": str(agent.id), "name": agent.name, "config": agent.config})


async def list_workflows(request: Request) -> Response:
    session: AsyncSession = request.state.session
    return JSONResponse(list(await session.scalars(select(Workflow.name).order_by(Workflow.name))))


async def start_workflow(request: Request) -> Response:
    session: AsyncSession = request.state.session
    order = await request.json()
    author = (await session.scalars(select(User).where(User.email == func.lower(order["email"])))).one()
    session.add(Workflow(name=order["name"], status="active", created_by=author))
    await session.flush()
    return JSONResponse({"name": order["name"]}, 201)


def application(sessions: async_sessionmaker[AsyncSession], who: Callable[[Request], db.Binding] = by_host) -> Starlette:
    return Starlette(
        routes=[
            Route("/agents", list_agents),
            Route("/agents/{name}", put_agent, methods=["PUT"]),
            Route("/workflows", list_workflows),
            Route("/workflows", start_workflow, methods=["POST"]),
        ],
        middleware=[Middleware(TenantMiddleware, sessions=sessions, who=who)],
        exception_handlers={db.BindingRefused: refused_bind, DBAPIError: refused_statement},
    )
