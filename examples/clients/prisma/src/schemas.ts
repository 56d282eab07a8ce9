import { PrismaPg } from '@prisma/adapter-pg';
import type { Pool } from 'pg';
import { PrismaClient } from './generated/client.ts';
import { db, inTenant, tenantBySlug } from './tenancy.ts';

const clients = new Map<string, PrismaClient>();

/**
 * The client of a tenant that has a schema of its own, which Prisma writes into every statement. All share one pool.
 * It chooses no tenant: a statement that names a schema other than the bound tenant's is refused by the server.
 */
export async function clientOf(slug: string, { prisma, pool }: { prisma: PrismaClient; pool: Pool }): Promise<PrismaClient> {
  const known = clients.get(slug);
  if (known) return known;
  const [{ schema }] = await inTenant(prisma, tenantBySlug(slug), () => db().$queryRaw<[{ schema: string }]>`SELECT current_schema() AS schema`);
  const client = new PrismaClient({ adapter: new PrismaPg(pool, { schema }) });
  clients.set(slug, client);
  return client;
}
