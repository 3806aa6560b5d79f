"""A receiver of webhooks that verifies each with the `standardwebhooks` of PyPI. The one argument is a file of JSON: names of
secrets, and the secrets, read for each request. Every request is a line of JSON on standard output, and its answer.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


def say(**what):
    print(json.dumps(what), flush=True)


def verified(secret, body, headers):
    try:
        Webhook(secret).verify(body, headers)
        return "verified"
    except WebhookVerificationError as error:
        return str(error)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with open(sys.argv[1]) as file:
            secrets = json.load(file)
        results = {name: verified(secret, body, headers) for name, secret in secrets.items()}
        say(headers=headers, body=body, results=results)
        answer = json.dumps(results).encode()
        self.send_response(200 if "verified" in results.values() else 401)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
say(port=server.server_port)
server.serve_forever()
