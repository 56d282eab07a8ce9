import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { sql } from 'drizzle-orm';
import type { PoolClient } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { agents, agentsImport } from './schema.ts';
import type { Transaction } from './tenancy.ts';

type NewAgent = Pick<typeof agents.$inferInsert, 'name' | 'config'>;

const quoted = (value: string) => `"${value.replaceAll('"', '""')}"`;

async function* csv(rows: Iterable<NewAgent> | AsyncIterable<NewAgent>) {
  for await (const { name, config = {} } of rows) yield `${quoted(name)},${quoted(JSON.stringify(config))}\n`;
}

/** COPY into the table that is not protected, then on, in one transaction: nobody else ever sees the rows there. */
export async function importAgents(tx: Transaction, connection: PoolClient, rows: Iterable<NewAgent> | AsyncIterable<NewAgent>): Promise<number> {
  await pipeline(
    Readable.from(csv(rows)),
    connection.query(copyFrom('COPY agent_platform.agents_import (name, config) FROM STDIN (FORMAT csv)')),
  );
  const moved = await tx.execute(sql`
    WITH moved AS (DELETE FROM ${agentsImport} RETURNING name, config)
    INSERT INTO ${agents} (name, config) SELECT name, config FROM moved`);
  return moved.rowCount ?? 0;
}
