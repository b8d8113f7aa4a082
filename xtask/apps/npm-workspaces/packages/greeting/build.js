const fs = require('node:fs');

fs.mkdirSync('dist', { recursive: true });
fs.copyFileSync('greeting.js', 'dist/index.js');
