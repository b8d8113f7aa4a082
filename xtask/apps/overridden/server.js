const http = require('node:http');

const server = http.createServer((request, response) => {
  response.setHeader('content-type', 'text/plain');
  response.end('This is the wrong guess\n');
});

server.listen(process.env.PORT);
process.on('SIGTERM', () => server.close(() => process.exit(0)));
