import { serve } from '@hono/node-server';
import { application } from './app.ts';
import { openPool } from './tenancy.ts';

const { APP_URL, CLIENT_URL, PORT = '8080' } = process.env;
serve({ fetch: application(openPool(APP_URL), openPool(CLIENT_URL)).fetch, port: Number(PORT) });
