const Koa = require('koa');

const app = new Koa();

app.use(async (context) => {
  context.body = 'This is the first release';
});

app.listen(process.env.PORT);
