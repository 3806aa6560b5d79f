"""aiosmtpd as a mail server of the tests. The one argument is JSON: `port` (0 for a free one), `tls` ("starttls", "tls" or
"none"), `cert` and `key` (files), `login` and `password`, and `replies`: what it answers, in this order, to RCPT or DATA
instead of 250. Everything that happens is a line of JSON on standard output.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

wish = json.loads(sys.argv[1])
replies = list(wish.get("replies", []))


def say(**what):
    print(json.dumps(what), flush=True)


def reply(stage):
    if replies and replies[0][0] == stage:
        return replies.pop(0)[1]
    return None


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        refusal = reply("RCPT")
        if refusal:
            say(refused=refusal, to=address)
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        refusal = reply("DATA")
        say(
            refused=refusal,
            hello=session.host_name,
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            message=envelope.content.decode("ascii"),
            login=session.auth_data,
            encrypted=session.ssl is not None or wish["tls"] == "tls",
        )
        return refusal or "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    if (data.login.decode(), data.password.decode()) == (wish.get("login"), wish.get("password")):
        return AuthResult(success=True, auth_data=data.login.decode())
    say(refused="login")
    return AuthResult(success=False, handled=False)


class Server(SMTP):
    async def smtp_MAIL(self, arg):
        say(command="MAIL", encrypted=self.session.ssl is not None)
        return await super().smtp_MAIL(arg)


async def main():
    context = None
    if wish["tls"] != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(wish["cert"], wish["key"])

    def protocol():
        return Server(
            Handler(),
            hostname="mx.test",
            tls_context=context if wish["tls"] == "starttls" else None,
            require_starttls=wish["tls"] == "starttls",
            authenticator=authenticate,
            auth_required="login" in wish,
            auth_require_tls=wish["tls"] == "starttls",
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        protocol, "127.0.0.1", wish.get("port", 0), ssl=context if wish["tls"] == "tls" else None
    )
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
