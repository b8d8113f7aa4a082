import { Hono } from 'hono';

const app = new Hono();

app.get('/', (context) => context.text('This is the first release'));

export default { port: Number(process.env.PORT), fetch: app.fetch };
