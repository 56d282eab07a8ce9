/** After the migrations, as an admin: every model with a tenant column is protected, so that none is forgotten. */
import { is } from 'drizzle-orm';
import { getTableConfig, PgTable } from 'drizzle-orm/pg-core';
import { Client } from 'pg';
import * as schema from './schema.ts';

const tables = Object.values(schema)
  .filter((model) => is(model, PgTable))
  .map(getTableConfig)
  .filter((table) => table.columns.some((column) => column.name === 'tenant_id'))
  .map((table) => `${table.schema}.${table.name}`);

const admin = new Client({ connectionString: process.env.ADMIN_URL });
admin.on('notice', (notice) => console.warn(`${notice.message}\n${notice.hint ?? ''}`)); // keys that reach across tenants
await admin.connect();
await admin.query(
  `SELECT protect_table(name) FROM unnest($1::regclass[]) AS name
   WHERE name NOT IN (SELECT table_name FROM tenancy.protection_status WHERE intact)`,
  [tables],
);
await admin.end();
