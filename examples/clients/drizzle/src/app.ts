import { asc, eq, type SQL, sql } from 'drizzle-orm';
import { type Context, Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import { HTTPException } from 'hono/http-exception';
import type { Pool } from 'pg';
import { databaseError, httpStatus } from './errors.ts';
import { users, workflows } from './schema.ts';
import { inTenant, tenantBySlug, tenantOfApiKey, type Transaction } from './tenancy.ts';

type Env = { Variables: { tx: Transaction } };

/** A transaction for each request, bound before its handler runs and committed before its response is sent. */
export const bound = (pool: Pool, bind: (c: Context) => SQL) =>
  createMiddleware<Env>((c, next) =>
    inTenant(pool, bind(c), async (tx) => {
      c.set('tx', tx);
      await next();
      if (c.error) throw c.error; // Hono has made a response of it already; the transaction must know, too
    }),
  );

/** Stands for your log-in: the tenant of the session, never one that the browser names. */
function tenantOfSession(c: Context): SQL {
  const slug = c.req.header('x-session-tenant');
  if (!slug) throw new HTTPException(401, { message: 'not logged in' });
  return tenantBySlug(slug);
}

function apiKeyOfRequest(c: Context): SQL {
  const [, key] = c.req.header('authorization')?.match(/^Bearer (\S+)$/) ?? [];
  if (!key) throw new HTTPException(401, { message: 'an API key is required' });
  return tenantOfApiKey(key);
}

/** No handler and no statement in it names a tenant. */
const routes = new Hono<Env>()
  .get('/workflows', async (c) =>
    c.json(await c.var.tx.query.workflows.findMany({ columns: { id: true, name: true, status: true }, orderBy: asc(workflows.name) })),
  )
  .post('/workflows', async (c) => {
    const { name, status } = await c.req.json();
    const [creator] = await c.var.tx.select({ id: users.id }).from(users).where(eq(users.role, 'owner')).limit(1);
    if (!creator) throw new HTTPException(409, { message: 'the tenant has no owner' });
    const [made] = await c.var.tx.insert(workflows).values({ name, status, createdBy: creator.id }).returning();
    return c.json(made, 201);
  });

export function application(backend: Pool, api: Pool) {
  const app = new Hono();
  app.use('/app/*', bound(backend, tenantOfSession)).route('/app', routes);
  app.use('/api/*', bound(api, apiKeyOfRequest)).route('/api', routes);
  app.onError((error, c) => {
    if (error instanceof HTTPException) return error.getResponse();
    const status = httpStatus(error);
    if (status === 500) console.error(error);
    return c.json({ error: status === 500 ? 'internal error' : databaseError(error)?.message }, status);
  });
  return app;
}
