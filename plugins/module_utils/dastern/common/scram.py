"""SCRAM-SHA-256 verifiers as PostgreSQL stores them.

With them passwords are compared and set without being sent in plain text.

Form (PostgreSQL, catalog pg_authid): `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in
base64. Passwords here are printable ASCII, which SASLprep (RFC 4013) leaves unchanged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re

ITERATIONS = 4096
MINIMUM_LENGTH = 12
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def acceptable(password: str) -> bool:
    """Return whether the password is long enough and every character is printable ASCII."""
    return len(password) >= MINIMUM_LENGTH and all(" " <= character <= "~" for character in password)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return the verifier that PostgreSQL stores for `password` (RFC 5802, section 3)."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def matches(password: str, stored: str | None) -> bool:
    """Return whether `stored`, as in pg_authid, is a SCRAM verifier of `password`."""
    parts = _VERIFIER.fullmatch(stored or "")
    if parts is None:
        return False
    try:
        salt = base64.b64decode(parts[2], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(verifier(password, salt, int(parts[1])), parts[0])
