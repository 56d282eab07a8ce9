/** A database for the tests, made from the template and migrated. In it, and only in it, a transaction may go from tenant to tenant. */
import { execFileSync } from 'node:child_process';
import { TransactionRollbackError } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Client } from 'pg';
import * as schema from '../src/schema.ts';
import { tenantBySlug, type Transaction } from '../src/tenancy.ts';

const { APP_URL = '', MIGRATOR_URL = '', ADMIN_URL = '', TEST_TEMPLATE = 'agent_platform_template' } = process.env;
const name = 'test_drizzle';

function urlOf(url: string, changes: Partial<URL>): string {
  return Object.assign(new URL(url), changes).href;
}

async function asMigrator(...statements: string[]) {
  const migrator = new Client({ connectionString: MIGRATOR_URL });
  await migrator.connect();
  for (const statement of statements) await migrator.query(statement);
  await migrator.end();
}

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
  const connection = new Client({ connectionString: urlOf(MIGRATOR_URL, { pathname: name, username: new URL(APP_URL).username }) });
  await connection.connect();
  const database = drizzle(connection, { schema });

  return {
    /** A test: all it does is undone. */
    async undone(work: (tx: Transaction, become: (slug: string) => Promise<unknown>) => Promise<void>) {
      const test = database.transaction(async (tx) => {
        await work(tx, (slug) => tx.execute(tenantBySlug(slug)));
        tx.rollback();
      });
      await test.catch((error) => {
        if (!(error instanceof TransactionRollbackError)) throw error;
      });
    },
    async drop() {
      await connection.end();
      await asMigrator(`DROP DATABASE ${name}`);
    },
  };
}
