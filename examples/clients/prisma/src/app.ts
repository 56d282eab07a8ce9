import { type Context, Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import { HTTPException } from 'hono/http-exception';
import { databaseError, httpStatus } from './errors.ts';
import type { Prisma, PrismaClient } from './generated/client.ts';
import { db, inTenant, tenantBySlug, tenantOfApiKey } from './tenancy.ts';

/** A transaction for each request, bound before its handler runs and committed before its response is sent. */
export const bound = (prisma: PrismaClient, bind: (c: Context) => Prisma.Sql) =>
  createMiddleware((c, next) =>
    inTenant(prisma, bind(c), async () => {
      await next();
      if (c.error) throw c.error; // Hono has made a response of it already; the transaction must know, too
    }),
  );

/** Stands for your log-in: the tenant of the session, never one that the browser names. */
function tenantOfSession(c: Context): Prisma.Sql {
  const slug = c.req.header('x-session-tenant');
  if (!slug) throw new HTTPException(401, { message: 'not logged in' });
  return tenantBySlug(slug);
}

function apiKeyOfRequest(c: Context): Prisma.Sql {
  const [, key] = c.req.header('authorization')?.match(/^Bearer (\S+)$/) ?? [];
  if (!key) throw new HTTPException(401, { message: 'an API key is required' });
  return tenantOfApiKey(key);
}

/** No handler and no statement in it names a tenant. */
const routes = new Hono()
  .get('/workflows', async (c) => c.json(await db().workflow.findMany({ select: { id: true, name: true, status: true }, orderBy: { name: 'asc' } })))
  .post('/workflows', async (c) => {
    const { name, status } = await c.req.json();
    const creator = await db().user.findFirst({ where: { role: 'owner' }, select: { id: true } });
    if (!creator) throw new HTTPException(409, { message: 'the tenant has no owner' });
    return c.json(await db().workflow.create({ data: { name, status, createdBy: creator.id } }), 201);
  });

export function application(backend: PrismaClient, api: PrismaClient) {
  const app = new Hono();
  app.use('/app/*', bound(backend, tenantOfSession)).route('/app', routes);
  app.use('/api/*', bound(api, apiKeyOfRequest)).route('/api', routes);
  app.onError((error, c) => {
    if (error instanceof HTTPException) return error.getResponse();
    const status = httpStatus(error);
    if (status === 500) console.error(error);
    return c.json({ error: status === 500 ? 'internal error' : databaseError(error)?.originalMessage }, status);
  });
  return app;
}
