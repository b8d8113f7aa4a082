const { serve } = require('@hono/node-server');
const { Hono } = require('hono');
const { greeting } = require('@sample/greeting');

const app = new Hono();
app.get('/', (context) => context.text(greeting));
serve({ fetch: app.fetch, port: Number(process.env.PORT) });
