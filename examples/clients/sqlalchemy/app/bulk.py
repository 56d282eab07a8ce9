"""Many rows at once. COPY is refused under row security (0A000), so it goes into a table of its own, and the rows move on from there."""

from collections.abc import Iterable
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from sqlalchemy import CursorResult, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Agent, agents_import


async def import_agents(session: AsyncSession, agents: Iterable[tuple[str, dict[str, Any]]]) -> int:
    """Both steps are in the session's transaction: nobody else ever sees a row in agents_import."""
    connection = await (await session.connection()).get_raw_connection()
    driver = connection.driver_connection
    assert isinstance(driver, AsyncConnection)
    async with driver.cursor() as cursor, cursor.copy("COPY agents_import (name, config) FROM STDIN") as copy:
        for name, config in agents:
            await copy.write_row((name, Jsonb(config)))

    moved = delete(agents_import).returning(agents_import.c.name, agents_import.c.config).cte("moved")
    # Without the class's defaults: uuid4() would be called once for all rows. The table has its own.
    rows = insert(Agent).from_select(["name", "config"], select(moved.c.name, moved.c.config), include_defaults=False)
    result = await session.execute(rows, execution_options={"preserve_rowcount": True})
    assert isinstance(result, CursorResult)
    return result.rowcount
