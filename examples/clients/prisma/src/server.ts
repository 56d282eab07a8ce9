import { serve } from '@hono/node-server';
import { application } from './app.ts';
import { connect } from './tenancy.ts';

const { APP_URL, CLIENT_URL, PORT = '8080' } = process.env;
serve({ fetch: application(connect(APP_URL).prisma, connect(CLIENT_URL).prisma).fetch, port: Number(PORT) });
