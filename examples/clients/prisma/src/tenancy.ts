import { AsyncLocalStorage } from 'node:async_hooks';
import { PrismaPg } from '@prisma/adapter-pg';
import { Pool } from 'pg';
import { Prisma, PrismaClient } from './generated/client.ts';

/** Prisma names the schema in every statement; `search_path` plays no part. */
const SCHEMA = 'agent_platform';

/** One for each role the application connects as. The pool is there for what Prisma does not do, such as COPY. */
export function connect(url: string | undefined, max = 3) {
  if (!url) throw new Error('the URL of the database is not set');
  const pool = new Pool({ connectionString: url, max });
  pool.on('error', lost);
  return { pool, prisma: new PrismaClient({ adapter: new PrismaPg(pool, { schema: SCHEMA, disposeExternalPool: true }) }) };
}

/** Without it the loss of a connection that waits, in the pool or between two statements, would end the process. */
export const lost = (error: Error) => console.error('a connection was lost:', error.message);

/** For a backend that knows the tenant, say from its session or the host's name. Level app. */
export const tenantBySlug = (slug: string) => Prisma.sql`SELECT set_tenant_by_slug(${slug}) AS tenant_id`;

/** For an API server, which cannot choose. Level client. */
export const tenantOfApiKey = (apiKey: string) => Prisma.sql`SELECT tenant_id FROM authenticate_api_key(${apiKey})`;

interface Bound {
  tx: Prisma.TransactionClient;
  tenantId: string;
}

const bound = new AsyncLocalStorage<Bound>();

function current(): Bound {
  const store = bound.getStore();
  if (!store) throw new Error('no tenant is bound here: call inTenant()');
  return store;
}

/** The client of the running request: its transaction, bound to its tenant. */
export const db = () => current().tx;

/** For Prisma's compound keys, which want a value: `where: { tenantId_name: { tenantId: tenantId(), name } }`. */
export const tenantId = () => current().tenantId;

/** All work is done in here: one transaction, whose first statement binds the tenant. What `work` throws rolls it back. */
export function inTenant<T>(prisma: PrismaClient, bind: Prisma.Sql, work: () => Promise<T>): Promise<T> {
  return prisma.$transaction(
    async (tx) => {
      const [row] = await tx.$queryRaw<[{ tenant_id: string }]>(bind);
      return bound.run({ tx, tenantId: row.tenant_id }, work);
    },
    { maxWait: 10_000, timeout: 15_000 },
  );
}
