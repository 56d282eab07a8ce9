import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { Prisma } from './generated/client.ts';

interface DatabaseError {
  originalCode?: string; // the SQLSTATE
  originalMessage?: string;
  hint?: string;
}

/** The server's own error, whatever Prisma's code is: P2010 of raw SQL, P2002 of a unique key, P2039 of most others. */
export function databaseError(error: unknown): DatabaseError | undefined {
  if (!(error instanceof Prisma.PrismaClientKnownRequestError)) return undefined;
  return (error.meta?.driverAdapterError as { cause?: DatabaseError } | undefined)?.cause;
}

const STATUS: Record<string, ContentfulStatusCode> = {
  '28000': 401, // an API key or token that is not valid, or no longer
  '54000': 402, // the plan allows no more
  '42501': 403, // a suspended tenant; a role or scope that is missing
  '25006': 403, // a write for a read-only tenant
  P0002: 404, // no such tenant
  '23505': 409,
  '53400': 429, // too often, or too many at once
  '55000': 503, // the tenant is being moved: try again
};

export const httpStatus = (error: unknown): ContentfulStatusCode => STATUS[databaseError(error)?.originalCode ?? ''] ?? 500;
