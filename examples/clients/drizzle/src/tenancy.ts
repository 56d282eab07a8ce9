import { type SQL, sql } from 'drizzle-orm';
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import { Pool, type PoolClient } from 'pg';
import * as schema from './schema.ts';

export type Database = NodePgDatabase<typeof schema>;
export type Transaction = Parameters<Parameters<Database['transaction']>[0]>[0];

/** One for each role the application connects as. */
export function openPool(url: string | undefined, max = 3): Pool {
  if (!url) throw new Error('the URL of the database is not set');
  const pool = new Pool({ connectionString: url, max });
  pool.on('error', lost);
  return pool;
}

/** Without it the loss of a connection that waits, in the pool or between two statements, would end the process. */
const lost = (error: Error) => console.error('a connection was lost:', error.message);

/** For a backend that knows the tenant, say from its session or the host's name. Level app. */
export const tenantBySlug = (slug: string): SQL => sql`SELECT set_tenant_by_slug(${slug})`;

/** For an API server, which cannot choose. Level client. */
export const tenantOfApiKey = (apiKey: string): SQL => sql`SELECT role, scopes FROM authenticate_api_key(${apiKey})`;

/**
 * All work is done in here: one transaction, whose first statement binds the tenant. What `work` throws rolls it back.
 * The connection is for what Drizzle does not do, such as COPY. Both end with it: a statement that somebody forgot to
 * wait for must not run in the transaction of the connection's next tenant.
 */
export async function inTenant<T>(pool: Pool, bind: SQL, work: (tx: Transaction, connection: PoolClient) => Promise<T>): Promise<T> {
  const connection = await pool.connect();
  connection.on('error', lost);
  const { proxy: lent, revoke } = Proxy.revocable(connection, {});
  try {
    return await drizzle(lent, { schema }).transaction(async (tx) => {
      await tx.execute(bind);
      return work(tx, lent);
    });
  } finally {
    revoke();
    connection.off('error', lost);
    connection.release();
  }
}
