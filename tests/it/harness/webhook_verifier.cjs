// A receiver of webhooks that verifies each with the `standardwebhooks` of npm. Arguments: a file of JSON with names of secrets
// and the secrets, read for each request; the directory of the installed packages. Every request is a line of JSON on standard
// output, and its answer.
'use strict';

const fs = require('fs');
const http = require('http');

const [secretsFile, packages] = process.argv.slice(2);
const {Webhook, WebhookVerificationError} = require(`${packages}/standardwebhooks`);

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');

const verified = (secret, body, headers) => {
    try {
        new Webhook(secret).verify(body, headers);
        return 'verified';
    } catch (error) {
        if (!(error instanceof WebhookVerificationError)) throw error;
        return error.message;
    }
};

const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
        const body = Buffer.concat(parts).toString();
        const secrets = JSON.parse(fs.readFileSync(secretsFile));
        const results = {};
        for (const [name, secret] of Object.entries(secrets)) results[name] = verified(secret, body, request.headers);
        say({headers: request.headers, body, results});
        response.statusCode = Object.values(results).includes('verified') ? 200 : 401;
        response.end(JSON.stringify(results));
    });
});
server.listen(0, '127.0.0.1', () => say({port: server.address().port}));
