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
