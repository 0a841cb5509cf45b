"""SCRAM-SHA-256 verifiers as PostgreSQL stores them, so that a plain password never has to be sent to be compared or set.

Form (PostgreSQL, catalog pg_authid): `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in
base64. Passwords here are printable ASCII, for which SASLprep (RFC 4013) changes nothing.
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
    """Whether every character is printable ASCII and there are enough of them."""
    return len(password) >= MINIMUM_LENGTH and all(" " <= character <= "~" for character in password)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores for `password`; RFC 5802, section 3."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def matches(password: str, stored: str | None) -> bool:
    """Whether `stored`, as in pg_authid, is a SCRAM verifier of `password`."""
    found = _VERIFIER.fullmatch(stored or "")
    if found is None:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found[1])), found[0])
