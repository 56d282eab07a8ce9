import { DrizzleQueryError } from 'drizzle-orm';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { DatabaseError } from 'pg';

/** The server's own error, which Drizzle wraps: `code` is the SQLSTATE, `detail` and `hint` are there too. */
export function databaseError(error: unknown): DatabaseError | undefined {
  const cause = error instanceof DrizzleQueryError ? error.cause : error;
  return cause instanceof DatabaseError ? cause : undefined;
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

export const httpStatus = (error: unknown): ContentfulStatusCode => STATUS[databaseError(error)?.code ?? ''] ?? 500;
