/** What the README says, done once: each ✓ is a promise that was kept, and the first that is not ends the story. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import { and, count, eq, sql } from 'drizzle-orm';
import { Hono } from 'hono';
import { Client } from 'pg';
import { application, bound } from './src/app.ts';
import { importAgents } from './src/bulk.ts';
import { databaseError } from './src/errors.ts';
import { agents, executions, notes, users, workflows } from './src/schema.ts';
import { inTenant, openPool, tenantBySlug, tenantOfApiKey, type Transaction } from './src/tenancy.ts';

const kept = (promise: string) => console.log(`   ✓ ${promise}`);
const npm = (...command: string[]) => {
  const { status, stdout, stderr } = spawnSync('npm', ['--silent', ...command], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
};
const refused = (sqlState: string, work: Promise<unknown>) => assert.rejects(work, (error) => databaseError(error)?.code === sqlState);

const backend = openPool(process.env.APP_URL);
const api = openPool(process.env.CLIENT_URL);
const as = <T>(slug: string, work: (tx: Transaction) => Promise<T>) => inTenant(backend, tenantBySlug(slug), work);
const ada = async (tx: Transaction) => (await tx.select({ id: users.id }).from(users).where(eq(users.role, 'owner')))[0]!.id;

// The next release is deployed: migrations first, then the application.
npm('run', 'migrate');
kept('drizzle-kit migrates: a new table, protected, and a column of every tenant filled');

const server = serve({ fetch: application(backend, api).fetch, port: 0, hostname: '127.0.0.1' });
await new Promise((resolve) => server.once('listening', resolve));
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const session = (slug: string) => ({ 'x-session-tenant': slug });
const get = async (path: string, headers: Record<string, string>) => {
  const response = await fetch(origin + path, { headers });
  return { status: response.status, body: (await response.json().catch(() => null)) as any };
};
const post = (path: string, headers: Record<string, string>, body: object) =>
  fetch(origin + path, { method: 'POST', headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify(body) });

// 1. Two requests of two tenants
for (const slug of ['acme', 'globex']) {
  assert.equal((await post('/app/workflows', session(slug), { name: `${slug}: triage`, status: 'active' })).status, 201);
}
for (const slug of ['acme', 'globex']) {
  const { body } = await get('/app/workflows', session(slug));
  assert.deepEqual(body.map((row: { name: string }) => row.name), [`${slug}: triage`]);
}
assert.equal((await get('/app/workflows', {})).status, 401);
assert.equal((await get('/app/workflows', session('nobody'))).status, 404);
assert.equal((await post('/app/workflows', session('acme'), { name: 'acme: triage' })).status, 409);
kept('one middleware binds: two tenants ask for the same page and get their own rows');

const failing = new Hono().use(bound(backend, () => tenantBySlug('acme'))).get('/', async (c) => {
  await c.var.tx.insert(agents).values({ name: 'acme: half done' });
  throw new Error('after the insert');
});
failing.onError((error, c) => c.text(error.message, 500));
assert.equal((await failing.request('/')).status, 500);
assert.equal(await as('acme', (tx) => tx.$count(agents)), 0);
kept('a request that fails is rolled back');

// 2. CRUD
await as('acme', async (tx) => {
  const [made] = await tx.insert(agents).values({ name: 'acme: Reader' }).returning();
  assert.deepEqual(await tx.select().from(agents), [made]);
  const [changed] = await tx.update(agents).set({ config: { tools: ['search'] } }).where(eq(agents.id, made!.id)).returning();
  assert.deepEqual(changed?.config, { tools: ['search'] });
  await as('globex', async (other) => {
    assert.equal((await other.update(agents).set({ name: 'globex: stolen' }).where(eq(agents.id, made!.id))).rowCount, 0);
    assert.equal((await other.delete(agents)).rowCount, 0);
  });
  assert.equal((await tx.delete(agents).where(eq(agents.id, made!.id))).rowCount, 1);
});
kept('create, read, update and delete, and no statement names the tenant');

// 3. Upsert: the tenant column is part of the key, and its value comes from the default
const upsert = (slug: string, version: number) =>
  as(slug, (tx) =>
    tx
      .insert(agents)
      .values({ name: `${slug}: Writer`, config: { version } })
      .onConflictDoUpdate({ target: [agents.tenantId, agents.name], set: { config: sql`excluded.config` } })
      .returning(),
  );
const [first] = await upsert('acme', 1);
const [second] = await upsert('acme', 2);
const [another] = await upsert('globex', 1);
assert.equal(second?.id, first?.id);
assert.deepEqual(second?.config, { version: 2 });
assert.notEqual(another?.id, first?.id);
kept('an upsert on (tenant_id, name) changes the own row');

// 4. Bulk load
await refused('0A000', inTenant(backend, tenantBySlug('acme'), (_, connection) => connection.query('COPY agent_platform.agents (name) FROM STDIN')));
const thousand = Array.from({ length: 1000 }, (_, n) => ({ name: `acme: imported, "${n}"`, config: { n } }));
assert.equal(await inTenant(backend, tenantBySlug('acme'), (tx, connection) => importAgents(tx, connection, thousand)), 1000);
const imported = (slug: string) => as(slug, (tx) => tx.$count(agents, sql`config ? 'n'`));
assert.deepEqual([await imported('acme'), await imported('globex')], [1000, 0]);
kept('1000 rows by COPY into a staging table, and on into the protected one');

// 5. Eager loading
for (const slug of ['acme', 'globex']) {
  await as(slug, async (tx) => {
    const [workflow] = await tx.select().from(workflows);
    await tx.insert(executions).values([{ workflowId: workflow!.id, taskCount: 3 }, { workflowId: workflow!.id, taskCount: 4 }]);
    const loaded = await tx.query.workflows.findMany({ with: { executions: true, creator: { columns: { email: true } } } });
    assert.deepEqual(
      loaded.map((row) => [row.name, row.creator.email, row.executions.map((run) => run.taskCount).sort()]),
      [[`${slug}: triage`, `ada@${slug}.example`, [3, 4]]],
    );
    const joined = await tx
      .select({ name: workflows.name, runs: count() })
      .from(workflows)
      .innerJoin(executions, eq(executions.workflowId, workflows.id))
      .groupBy(workflows.name);
    assert.deepEqual(joined, [{ name: `${slug}: triage`, runs: 2 }]);
  });
}
kept('workflows come with their executions and their creator, in one statement');

// 6. What the migration made
const noteOfAcme = await as('acme', async (tx) => {
  const [workflow] = await tx.select().from(workflows);
  await tx.insert(notes).values({ workflowId: workflow!.id, body: 'acme: runs at night' });
  const [loaded] = await tx.query.workflows.findMany({ with: { notes: true } });
  assert.deepEqual(loaded?.notes.map((note) => note.body), ['acme: runs at night']);
  return loaded!.notes[0]!;
});
for (const slug of ['acme', 'globex', 'hooli']) {
  const people = await as(slug, (tx) => tx.select({ email: users.email, shown: users.displayName }).from(users));
  assert.deepEqual(people, [{ email: `ada@${slug}.example`, shown: 'Ada' }]);
}
await as('globex', async (tx) => assert.deepEqual(await tx.select().from(notes), []));
await refused('23503', as('globex', (tx) => tx.insert(notes).values({ workflowId: noteOfAcme.workflowId, body: 'globex: reaches across' })));
kept("the new model is in use, its reference does not reach across tenants, and the column is filled in every tenant's rows");

// 7. API keys
const apiKey = await as('acme', async (tx) => {
  const { rows } = await tx.execute<{ api_key: string }>(sql`SELECT api_key FROM create_api_key('story', '{workflows:read}')`);
  return rows[0]!.api_key;
});
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const byKey = await get('/api/workflows', bearer(apiKey));
assert.deepEqual(byKey.body.map((row: { name: string }) => row.name), ['acme: triage']);
kept('a request with an API key sees the tenant of the key');
assert.equal((await get('/api/workflows', bearer('ptk_noise'))).status, 401);
await refused('28000', inTenant(api, tenantOfApiKey('ptk_noise'), (tx) => tx.select().from(workflows)));
await refused('42501', inTenant(api, tenantBySlug('globex'), (tx) => tx.select().from(workflows)));
kept('a wrong key is 28000 and HTTP 401, and the API server cannot choose a tenant');

// 8. A limit
for (const n of [1, 2]) assert.equal((await post('/app/workflows', session('hooli'), { name: `hooli: ${n}`, status: 'active' })).status, 201);
const third = await post('/app/workflows', session('hooli'), { name: 'hooli: 3', status: 'active' });
assert.deepEqual([third.status, await third.json()], [402, { error: 'limit reached for concurrent_workflows (2)' }]);
await refused('54000', as('hooli', async (tx) => tx.insert(workflows).values({ name: 'hooli: 3', status: 'active', createdBy: await ada(tx) })));
assert.equal(await as('hooli', (tx) => tx.$count(workflows)), 2);
kept("a limit of the plan is DatabaseError 54000 and HTTP 402, and nothing of the request stays");

// 9. A suspended tenant
const operator = new Client({ connectionString: process.env.OPERATOR_URL });
await operator.connect();
await operator.query("SELECT suspend_tenant(id, 'invoice 7 is overdue') FROM tenancy.tenants WHERE slug = 'globex'");
assert.equal((await get('/app/workflows', session('globex'))).status, 403);
await refused('42501', as('globex', (tx) => tx.select().from(workflows)));
assert.equal((await get('/app/workflows', session('acme'))).status, 200);
await operator.query("SELECT resume_tenant(id) FROM tenancy.tenants WHERE slug = 'globex'");
await operator.end();
assert.equal((await get('/app/workflows', session('globex'))).status, 200);
kept('a suspended tenant is 42501 and HTTP 403, the others go on, and so does it when resumed');

// 10. Two tenants at once
const own = async (slug: string, requests: number) => {
  for (let n = 0; n < requests; n++) {
    const { status, body } = await get('/app/workflows', session(slug));
    assert.equal(status, 200);
    assert.deepEqual(body.map((row: { name: string }) => row.name), [`${slug}: triage`]);
  }
};
await Promise.all(['acme', 'globex'].flatMap((slug) => Array.from({ length: 8 }, () => own(slug, 20))));
assert.equal(backend.totalCount <= 3, true);
kept('320 requests of two tenants, 16 at a time over 3 connections, see their own rows only');

const single = openPool(process.env.APP_URL, 1);
let forgotten: Transaction | undefined;
await inTenant(single, tenantBySlug('acme'), async (tx) => {
  forgotten = tx;
});
await inTenant(single, tenantBySlug('globex'), async (tx) => {
  await assert.rejects(async () => forgotten!.insert(agents).values({ name: 'acme: too late' }));
  assert.equal(await tx.$count(agents), 1);
});
await single.end();
kept('a statement that comes after its transaction is refused, not run in that of the next tenant on the connection');

// 11. Raw SQL that forgets the filter
const names = await as('globex', async (tx) => (await tx.execute<{ name: string }>(sql`SELECT name FROM workflows UNION ALL SELECT name FROM agents`)).rows);
assert.deepEqual(names.map((row) => row.name).sort(), ['globex: Writer', 'globex: triage']);
await refused('42501', backend.query('SELECT name FROM workflows'));
kept("raw SQL without a filter returns the bound tenant's rows, and is 42501 where none is bound");

// 12. The tenant column
await refused('42501', as('acme', (tx) => tx.insert(agents).values({ tenantId: sql`NULL`, name: 'acme: of nobody' })));
await refused('42501', as('globex', (tx) => tx.insert(agents).values({ tenantId: noteOfAcme.tenantId, name: "globex: acme's" })));
kept('an explicit NULL and another tenant are 42501: the model declares the default, and statements leave the column out');

await new Promise((resolve) => server.close(resolve));
await Promise.all([backend.end(), api.end()]);

// 13. Its test suite
npm('test');
kept('the test suite passes on a database of its own, two tenants in a transaction that is rolled back');
