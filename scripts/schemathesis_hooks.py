"""What schemathesis has to know beyond the OpenAPI document."""

import hashlib

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


@schemathesis.deserializer("application/octet-stream")
def _octets(_ctx, response):
    """Random bytes are what they are."""
    return response.content.decode("latin-1")


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Ends that an answer suggested, such as a key's creation, are over already."""
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("expires_at"), str) and body["expires_at"] < "2040":
        case.body = {**body, "expires_at": "2040-02-28T12:34:56Z"}
