import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Pool } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { Prisma } from './generated/client.ts';
import { lost } from './tenancy.ts';

type NewAgent = Pick<Prisma.AgentCreateManyInput, 'name' | 'config'>;

const quoted = (value: string) => `"${value.replaceAll('"', '""')}"`;

async function* csv(rows: Iterable<NewAgent> | AsyncIterable<NewAgent>) {
  for await (const { name, config = {} } of rows) yield `${quoted(name)},${quoted(JSON.stringify(config))}\n`;
}

/**
 * COPY, which Prisma has not: on a connection of its pool, into the table that is not protected, then on, in one transaction, so that
 * nobody else ever sees the rows there.
 */
export async function importAgents(pool: Pool, bind: Prisma.Sql, rows: Iterable<NewAgent> | AsyncIterable<NewAgent>): Promise<number> {
  const connection = await pool.connect();
  connection.on('error', lost);
  try {
    await connection.query('BEGIN');
    await connection.query(bind.text, bind.values);
    await pipeline(
      Readable.from(csv(rows)),
      connection.query(copyFrom('COPY agent_platform.agents_import (name, config) FROM STDIN (FORMAT csv)')),
    );
    const moved = await connection.query(`
      WITH moved AS (DELETE FROM agent_platform.agents_import RETURNING name, config)
      INSERT INTO agent_platform.agents (name, config) SELECT name, config FROM moved`);
    await connection.query('COMMIT');
    return moved.rowCount ?? 0;
  } catch (error) {
    await connection.query('ROLLBACK');
    throw error;
  } finally {
    connection.off('error', lost);
    connection.release();
  }
}
