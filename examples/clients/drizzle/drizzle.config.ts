import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'postgresql',
  schema: './src/schema.ts',
  out: './migrations',
  schemaFilter: ['agent_platform'],
  dbCredentials: { url: process.env.MIGRATOR_URL ?? '' },
});
