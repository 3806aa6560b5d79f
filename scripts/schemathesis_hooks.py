"""What schemathesis has to know beyond the OpenAPI document."""

import hashlib
import json
import os

import schemathesis
from hypothesis import strategies as st


def _password(number: int) -> str:
    """A strong password, always the same one for the same number."""
    return "kw-" + hashlib.sha256(str(number).encode()).hexdigest()[:32]


# Passwords that are easily guessed are refused, which a schema can't say. Left
# to itself, the generator would make little else: "00000000" is its favourite.
# Wrong lengths and types are still tried: those come from the schema.
schemathesis.openapi.format("password", st.integers(min_value=0, max_value=2**32).map(_password))


# An expiry must be in the future, which a schema can't say either. Filters take
# any time; for them these do as well as others. Wrong forms are still tried.
schemathesis.openapi.format(
    "date-time",
    st.integers(min_value=2040, max_value=9998).map(lambda year: f"{year}-02-28T12:34:56.789Z"),
)


# What makes a network or a pattern of paths good is more than a schema can say
# (no bit beyond the length, no segment that another service might read in
# another way). Wrong ones are the unit tests' business.
schemathesis.openapi.format(
    "network",
    st.sampled_from(["10.0.0.0/8", "192.0.2.7", "0.0.0.0/0", "2001:db8::/32", "::1", "198.51.100.0/24"]),
)
schemathesis.openapi.format(
    "path-pattern",
    st.sampled_from(["/", "/**", "/orders/**", "/users/*/avatar", "/a/b", "/a%20b"]),
)


@schemathesis.deserializer("application/octet-stream")
def _octets(_ctx, response):
    """Random bytes are what they are."""
    return response.content.decode("latin-1")


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def _text(_ctx, value):
    """Text is sent as it is; what isn't text, in the same words as JSON."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def _lines(_ctx, response):
    """A JSON object a line; the document says only that it is text."""
    return response.text


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Ends that an answer suggested, such as a key's creation, are over already."""
    body = case.body
    # The administrator leaves those as they are whom the run logs in as.
    if case.operation.path.startswith("/v1/users/{id}") and case.method.upper() != "GET":
        if str((case.path_parameters or {}).get("id")) in os.environ.get("CHECK_OPENAPI_CALLERS", "").split():
            case.path_parameters["id"] = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G"
    if isinstance(body, dict) and isinstance(body.get("expires_at"), str) and body["expires_at"] < "2040":
        case.body = {**body, "expires_at": "2040-02-28T12:34:56Z"}
    _rename_limits(case.body)
    _name_zones(case.body)
    _make_past(case.body)
    _rename_scopes(case.body)
    _choose(case.operation.path, case.method, case.body)


def _choose(path, method, body):
    """What is required or excluded together, which a schema shared by several routes can't say."""
    if not isinstance(body, dict):
        return
    if path.endswith("/keys") and method.upper() == "POST" and body.get("name") is None:
        body["name"] = "k"
    if path.endswith(":from-openapi"):
        body.setdefault("document", None)
    # A catalogue holds none of Keyward's own.
    if "description" in body and isinstance(body.get("name"), str) and body["name"].startswith("keyward:"):
        body["name"] = "own" + body["name"].removeprefix("keyward")
    # The log must still say it if something panics.
    if path.endswith("/log-level") and isinstance(body.get("level"), str):
        body["level"] = body["level"].replace("off", "info")
    # What a project wants of its keys would turn away the keys that are made later in the run.
    if path.endswith("/config"):
        for name in ("max_key_expiry", "max_keys", "max_keys_per_person", "strict_scopes"):
            if not isinstance(body.get(name), (list, dict)):
                body.pop(name, None)
    # A description of an API: the document itself or where it is, and not any object.
    if "document" in body and (body["document"] is None or isinstance(body["document"], dict)):
        body.pop("url", None)
        if "openapi" not in (body["document"] or {}):
            body["document"] = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}}


def _make_past(body):
    """A key that moves in was made in the past, and what is said of its end agrees, which a schema can't say."""
    if not isinstance(body, dict) or "hash" not in body:
        return
    for name in ("created_at", "revoked_at"):
        if isinstance(body.get(name), str) and body[name].endswith("-02-28T12:34:56.789Z"):
            body[name] = "2024-02-28T12:34:56.789Z"
    says = any(body.get(name) is not None for name in ("revoked_at", "revoked_reason", "revoked_note"))
    if says and body.get("revoked") in (None, False):
        body["revoked"] = True


def _rename_limits(body):
    """Limits of one list have different names, which a schema can't say."""
    limits = body.get("limits") if isinstance(body, dict) else None
    names = [limit.get("name") if isinstance(limit, dict) else None for limit in limits] if isinstance(limits, list) else []
    if len(names) > 1 and all(isinstance(name, str) for name in names) and len(set(names)) < len(names):
        for number, limit in enumerate(limits):
            limit["name"] = f"{limit['name'][:60]}{number}" if limit["name"] else ""


def _name_zones(body):
    """Which names of time zones there are is more than a schema can say."""
    schedule = body.get("schedule") if isinstance(body, dict) else None
    for opening in schedule if isinstance(schedule, list) else []:
        if isinstance(opening, dict) and isinstance(opening.get("timezone"), str):
            opening["timezone"] = "Europe/Berlin"


def _rename_scopes(body):
    """Scopes of one import have different names, which a schema can't say."""
    scopes = body.get("scopes") if isinstance(body, dict) and "version" in body else None
    names = [scope.get("name") if isinstance(scope, dict) else None for scope in scopes] if isinstance(scopes, list) else []
    if len(names) > 1 and all(isinstance(name, str) for name in names) and len(set(names)) < len(names):
        for number, scope in enumerate(scopes):
            scope["name"] = f"n{number}:{scope['name'].split(':')[-1][:60]}" if ":" in scope["name"] else scope["name"]
