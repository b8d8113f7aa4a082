import { createServer, type ServerResponse } from 'node:http';

const text: string = 'This is the first release';

createServer((_request, response: ServerResponse) => {
  response.end(text);
}).listen(Number(process.env.PORT));
