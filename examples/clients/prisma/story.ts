/** What the README says, done once: each ✓ is a promise that was kept, and the first that is not ends the story. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { Client } from 'pg';
import { application, bound } from './src/app.ts';
import { importAgents } from './src/bulk.ts';
import { databaseError } from './src/errors.ts';
import { Prisma } from './src/generated/client.ts';
import { clientOf } from './src/schemas.ts';
import { connect, db, inTenant, tenantBySlug, tenantId, tenantOfApiKey } from './src/tenancy.ts';

const kept = (promise: string) => console.log(`   ✓ ${promise}`);
const npm = (...command: string[]) => {
  const { status, stdout, stderr } = spawnSync('npm', ['--silent', ...command], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
};
const refused = (sqlState: string, work: Promise<unknown>) => assert.rejects(work, (error) => databaseError(error)?.originalCode === sqlState);

const backend = connect(process.env.APP_URL);
const api = connect(process.env.CLIENT_URL);
const as = <T>(slug: string, work: () => Promise<T>) => inTenant(backend.prisma, tenantBySlug(slug), work);

// The next release is deployed: migrations first, then the application.
npm('run', 'migrate');
kept('migrations run as SQL by psql: a new table, protected, a column of every tenant filled, a template of schemas');

const server = serve({ fetch: application(backend.prisma, api.prisma).fetch, port: 0, hostname: '127.0.0.1' });
await new Promise((resolve) => server.once('listening', resolve));
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const session = (slug: string) => ({ 'x-session-tenant': slug });
const get = async (path: string, headers: Record<string, string>) => {
  const response = await fetch(origin + path, { headers });
  return { status: response.status, body: (await response.json().catch(() => null)) as any };
};
const post = (path: string, headers: Record<string, string>, body: object) =>
  fetch(origin + path, { method: 'POST', headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify(body) });
const names = (rows: { name: string }[]) => rows.map((row) => row.name).sort();

// 1. Two requests of two tenants
for (const slug of ['acme', 'globex']) {
  assert.equal((await post('/app/workflows', session(slug), { name: `${slug}: triage`, status: 'active' })).status, 201);
}
for (const slug of ['acme', 'globex']) assert.deepEqual(names((await get('/app/workflows', session(slug))).body), [`${slug}: triage`]);
assert.equal((await get('/app/workflows', {})).status, 401);
assert.equal((await get('/app/workflows', session('nobody'))).status, 404);
assert.equal((await post('/app/workflows', session('acme'), { name: 'acme: triage' })).status, 409);
kept('one middleware binds: two tenants ask for the same page and get their own rows');

const failing = new Hono().use(bound(backend.prisma, () => tenantBySlug('acme'))).get('/', async () => {
  await db().agent.create({ data: { name: 'acme: half done' } });
  throw new Error('after the insert');
});
failing.onError((error, c) => c.text(error.message, 500));
assert.equal((await failing.request('/')).status, 500);
assert.equal(await as('acme', () => db().agent.count()), 0);
kept('a request that fails is rolled back');

// 2. CRUD
const made = await as('acme', async () => {
  const agent = await db().agent.create({ data: { name: 'acme: Reader' } });
  assert.deepEqual(await db().agent.findMany(), [agent]);
  return agent;
});
await as('globex', async () => {
  assert.deepEqual(await db().agent.findMany(), []);
  assert.equal((await db().agent.updateMany({ where: { id: made.id }, data: { name: 'globex: stolen' } })).count, 0);
  assert.equal((await db().agent.deleteMany()).count, 0);
});
await as('acme', async () => {
  assert.equal((await db().agent.updateMany({ where: { id: made.id }, data: { config: { tools: ['search'] } } })).count, 1);
  assert.deepEqual((await db().agent.findFirstOrThrow({ where: { id: made.id } })).config, { tools: ['search'] });
  assert.equal((await db().agent.deleteMany({ where: { id: made.id } })).count, 1);
});
kept('create, read, update and delete, and no statement names the tenant');

// 3. Upsert, one of the few that want a value for the tenant: that of the transaction
const upsert = (slug: string, version: number) =>
  as(slug, () => {
    const key = { tenantId: tenantId(), name: `${slug}: Writer` };
    return db().agent.upsert({ where: { tenantId_name: key }, create: { ...key, config: { version } }, update: { config: { version } } });
  });
const [first, second, another] = [await upsert('acme', 1), await upsert('acme', 2), await upsert('globex', 1)];
assert.equal(second.id, first.id);
assert.deepEqual(second.config, { version: 2 });
assert.notEqual(another.id, first.id);
kept('an upsert on (tenant_id, name) changes the own row');

// 4. Bulk load
const many = (slug: string, word: string) => Array.from({ length: 1000 }, (_, n) => ({ name: `${slug}: ${word}, "${n}"`, config: { n } }));
assert.equal(await importAgents(backend.pool, tenantBySlug('acme'), many('acme', 'copied')), 1000);
const copied = { name: { contains: ': copied' } };
assert.equal(await as('acme', () => db().agent.count({ where: copied })), 1000);
assert.equal(await as('globex', () => db().agent.count({ where: copied })), 0);
kept("1000 rows by COPY into a staging table, over Prisma's own pool, and on into the protected one");
assert.equal((await as('acme', () => db().agent.createMany({ data: many('acme', 'created') }))).count, 1000);
kept('1000 rows by createMany');

// 5. Eager loading
for (const slug of ['acme', 'globex']) {
  await as(slug, async () => {
    const [workflow] = await db().workflow.findMany();
    await db().execution.createMany({ data: [3, 4].map((taskCount) => ({ workflowId: workflow!.id, taskCount })) });
    for (const relationLoadStrategy of ['join', 'query'] as const) {
      const loaded = await db().workflow.findMany({
        include: { executions: { orderBy: { taskCount: 'asc' } }, creator: { select: { email: true } } },
        relationLoadStrategy,
      });
      assert.deepEqual(
        loaded.map((row) => [row.name, row.creator.email, row.executions.map((run) => run.taskCount)]),
        [[`${slug}: triage`, `ada@${slug}.example`, [3, 4]]],
      );
    }
  });
}
kept('workflows come with their executions and their creator, joined or by a statement each');

// 6. What the migration made
const noteOfAcme = await as('acme', async () => {
  const [workflow] = await db().workflow.findMany();
  await db().note.create({ data: { workflowId: workflow!.id, body: 'acme: runs at night' } });
  const loaded = await db().workflow.findFirstOrThrow({ include: { notes: true } });
  assert.deepEqual(loaded.notes.map((note) => note.body), ['acme: runs at night']);
  return loaded.notes[0]!;
});
for (const slug of ['acme', 'globex', 'hooli']) {
  const people = await as(slug, () => db().user.findMany({ select: { email: true, displayName: true } }));
  assert.deepEqual(people, [{ email: `ada@${slug}.example`, displayName: 'Ada' }]);
}
assert.equal(await as('globex', () => db().note.count()), 0);
await refused('23503', as('globex', () => db().note.create({ data: { workflowId: noteOfAcme.workflowId, body: 'globex: reaches across' } })));
kept("the new model is in use, its reference does not reach across tenants, and the column is filled in every tenant's rows");

// 7. API keys
const apiKey = await as('acme', async () => {
  const [row] = await db().$queryRaw<[{ api_key: string }]>`SELECT api_key FROM create_api_key('story', '{workflows:read}')`;
  return row.api_key;
});
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
assert.deepEqual(names((await get('/api/workflows', bearer(apiKey))).body), ['acme: triage']);
kept('a request with an API key sees the tenant of the key');
assert.equal((await get('/api/workflows', bearer('ptk_noise'))).status, 401);
await refused('28000', inTenant(api.prisma, tenantOfApiKey('ptk_noise'), () => db().workflow.findMany()));
await refused('42501', inTenant(api.prisma, tenantBySlug('globex'), () => db().workflow.findMany()));
kept('a wrong key is 28000 and HTTP 401, and the API server cannot choose a tenant');

// 8. A limit
for (const n of [1, 2]) assert.equal((await post('/app/workflows', session('hooli'), { name: `hooli: ${n}`, status: 'active' })).status, 201);
const third = await post('/app/workflows', session('hooli'), { name: 'hooli: 3', status: 'active' });
assert.deepEqual([third.status, await third.json()], [402, { error: 'limit reached for concurrent_workflows (2)' }]);
const overTheLimit = as('hooli', async () => {
  const ada = await db().user.findFirstOrThrow();
  await db().workflow.create({ data: { name: 'hooli: 3', status: 'active', createdBy: ada.id } });
});
await refused('54000', overTheLimit);
assert.equal(await as('hooli', () => db().workflow.count()), 2);
kept('a limit of the plan is PrismaClientKnownRequestError with 54000 and HTTP 402, and nothing of the request stays');

// 9. A suspended tenant
const operator = new Client({ connectionString: process.env.OPERATOR_URL });
await operator.connect();
await operator.query("SELECT suspend_tenant(id, 'invoice 7 is overdue') FROM tenancy.tenants WHERE slug = 'globex'");
assert.equal((await get('/app/workflows', session('globex'))).status, 403);
await refused('42501', as('globex', () => db().workflow.findMany()));
assert.equal((await get('/app/workflows', session('acme'))).status, 200);
await operator.query("SELECT resume_tenant(id) FROM tenancy.tenants WHERE slug = 'globex'");
assert.equal((await get('/app/workflows', session('globex'))).status, 200);
kept('a suspended tenant is 42501 and HTTP 403, the others go on, and so does it when resumed');

// 10. Two tenants at once
const own = async (slug: string, requests: number) => {
  for (let n = 0; n < requests; n++) {
    const { status, body } = await get('/app/workflows', session(slug));
    assert.equal(status, 200);
    assert.deepEqual(names(body), [`${slug}: triage`]);
  }
};
await Promise.all(['acme', 'globex'].flatMap((slug) => Array.from({ length: 8 }, () => own(slug, 20))));
assert.ok(backend.pool.totalCount <= 3);
kept('320 requests of two tenants, 16 at a time over 3 connections, see their own rows only');

const single = connect(process.env.APP_URL, 1);
let forgotten: Prisma.TransactionClient | undefined;
await inTenant(single.prisma, tenantBySlug('acme'), async () => {
  forgotten = db();
});
await inTenant(single.prisma, tenantBySlug('globex'), async () => {
  await assert.rejects(forgotten!.agent.create({ data: { name: 'acme: too late' } }), { code: 'P2028' });
  assert.equal(await db().agent.count(), 1);
});
await single.prisma.$disconnect();
kept('a statement that comes after its transaction is refused, not run in that of the next tenant on the connection');

// 11. Raw SQL that forgets the filter
const all = () => db().$queryRaw<{ name: string }[]>`SELECT name FROM workflows UNION ALL SELECT name FROM agents`;
assert.deepEqual(names(await as('globex', all)), ['globex: Writer', 'globex: triage']);
await refused('42501', backend.prisma.$queryRaw`SELECT name FROM workflows`);
await refused('42501', backend.prisma.workflow.findMany());
assert.throws(db, /no tenant is bound/);
kept("raw SQL without a filter returns the bound tenant's rows, and is 42501 where none is bound");

// 12. The tenant column
await refused('42501', as('acme', () => db().$executeRaw`INSERT INTO agents (tenant_id, name) VALUES (NULL, 'acme: of nobody')`));
await assert.rejects(
  as('acme', () => db().agent.create({ data: { tenantId: null as unknown as string, name: 'acme: of nobody' } })),
  Prisma.PrismaClientValidationError,
);
await refused('42501', as('globex', () => db().agent.create({ data: { tenantId: noteOfAcme.tenantId, name: "globex: acme's" } })));
kept('an explicit NULL and another tenant are 42501: the model declares the default, and statements leave the column out');

// A schema per tenant
await operator.query("SELECT create_tenant(initcap(slug), slug => slug, isolation => 'schema') FROM unnest('{initech,umbrella}'::text[]) AS slug");
await operator.end();
for (const slug of ['initech', 'umbrella']) {
  const prisma = await clientOf(slug, backend);
  const contact = await inTenant(prisma, tenantBySlug(slug), () => db().contact.create({ data: { name: `${slug}: Milton` } }));
  assert.deepEqual(contact, { id: 1, name: `${slug}: Milton`, stage: 'lead' });
  assert.equal(await clientOf(slug, backend), prisma);
}
const initech = await clientOf('initech', backend);
assert.deepEqual(names(await inTenant(initech, tenantBySlug('initech'), () => db().contact.findMany())), ['initech: Milton']);
kept("a tenant's own schema: the same models, keys of its own, a client for each over the same pool");
await refused('42501', inTenant(initech, tenantBySlug('umbrella'), () => db().contact.findMany()));
await refused('42501', inTenant(initech, tenantBySlug('acme'), () => db().contact.findMany()));
await refused('42501', initech.contact.findMany());
kept("the client of another tenant's schema is refused: 42501");

await new Promise((resolve) => server.close(resolve));
await Promise.all([backend.prisma.$disconnect(), api.prisma.$disconnect()]);

// 13. Its test suite
npm('test');
kept('the test suite passes on a database of its own, two tenants in a transaction that is rolled back');
