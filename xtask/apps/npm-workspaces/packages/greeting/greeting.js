exports.greeting = 'This is the first release';
