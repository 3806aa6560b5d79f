// A real OTLP receiver as a process: says where it listens, then each thing that it receives, a JSON line each.
// Arguments: the directory of the installed packages, and the port (0 picks a free one).
'use strict';

const [packages, port] = process.argv.slice(2);
const {MockOtlpServer, normalizeLogs, normalizeTrace} = require(`${packages}/@elastic/mockotlpserver`);

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');

const server = new MockOtlpServer({
    logLevel: 'warn',
    services: ['http'],
    httpHostname: '127.0.0.1',
    httpPort: Number(port),
    onTrace: (traces) => say({traces: normalizeTrace(traces)}),
    onLogs: (logs) => say({logs: normalizeLogs(logs)}),
    onRequest: ({path, headers}) => say({request: path, headers}),
});
server.start().then(() => say({url: server.httpUrl.toString()}));
