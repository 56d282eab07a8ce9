/** A database for the tests, made from the template and migrated. In it, and only in it, a transaction may go from tenant to tenant. */
import { execFileSync } from 'node:child_process';
import { Client } from 'pg';
import { connect, db, inTenant, tenantBySlug } from '../src/tenancy.ts';

const { APP_URL = '', MIGRATOR_URL = '', ADMIN_URL = '', TEST_TEMPLATE = 'agent_platform_template' } = process.env;
const name = 'test_prisma';

function urlOf(url: string, changes: Partial<URL>): string {
  return Object.assign(new URL(url), changes).href;
}

async function asMigrator(...statements: string[]) {
  const migrator = new Client({ connectionString: MIGRATOR_URL });
  await migrator.connect();
  for (const statement of statements) await migrator.query(statement);
  await migrator.end();
}

class Undo extends Error {}

export async function createDatabase() {
  await asMigrator(
    `DROP DATABASE IF EXISTS ${name}`,
    `CREATE DATABASE ${name} TEMPLATE ${TEST_TEMPLATE}`,
    `REVOKE TEMPORARY ON DATABASE ${name} FROM PUBLIC`,
    `ALTER DATABASE ${name} SET search_path = agent_platform, public`,
    `ALTER DATABASE ${name} SET tenancy.allow_rebind = on`,
  );
  const env = { ...process.env, MIGRATOR_URL: urlOf(MIGRATOR_URL, { pathname: name }), ADMIN_URL: urlOf(ADMIN_URL, { pathname: name }) };
  execFileSync('npm', ['run', '--silent', 'migrate'], { env, stdio: 'pipe' });
  const { prisma } = connect(urlOf(MIGRATOR_URL, { pathname: name, username: new URL(APP_URL).username }));

  return {
    /** A test that begins in a tenant; all it does is undone. */
    async undone(slug: string, work: () => Promise<void>) {
      const test = inTenant(prisma, tenantBySlug(slug), async () => {
        await work();
        throw new Undo();
      });
      await test.catch((error) => {
        if (!(error instanceof Undo)) throw error;
      });
    },
    become: (slug: string) => db().$queryRaw(tenantBySlug(slug)),
    async drop() {
      await prisma.$disconnect();
      await asMigrator(`DROP DATABASE ${name}`);
    },
  };
}
