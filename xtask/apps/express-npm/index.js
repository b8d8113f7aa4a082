const express = require('express');

const app = express();

app.get('/', (request, response) => {
  response.send('This is the first release');
});

app.listen(process.env.PORT || 3000);
