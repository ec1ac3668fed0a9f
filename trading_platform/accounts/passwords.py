"""Passwords: Argon2id hashes and the policy.

Policy after NIST SP 800-63B-4, section 3.1.1: at least 15 characters where the password is the only factor, any
character allowed, no composition rules, no forced change, compared against what is easily guessed.
"""

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 15
MAX_LENGTH = 256
MIN_DISTINCT = 6

# RFC 9106's second recommended option: Argon2id, 3 passes over 64 MiB, 4 lanes.
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)
# Checked where no such user exists, so that a refusal takes as long for an unknown address as for a known one.
_NOBODY = _HASHER.hash("a password that nobody has")


class WeakPasswordError(ValueError):
    """The password breaks the policy; the message says how."""


def hash_password(password: str) -> str:
    """An Argon2id hash in PHC format."""
    return _HASHER.hash(_normal(password))


def matches(password_hash: str | None, password: str) -> bool:
    """Whether the password is the one behind the hash; None (no such user) takes as long and is never true."""
    try:
        return _HASHER.verify(password_hash or _NOBODY, _normal(password)) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's (an import, an older release)."""
    return _HASHER.check_needs_rehash(password_hash)


def is_argon2_hash(text: str) -> bool:
    """Whether the text is an Argon2 hash that this platform can verify."""
    try:
        _HASHER.check_needs_rehash(text)
    except InvalidHashError:
        return False
    return True


def check_policy(password: str, email: str) -> None:
    """Raise `WeakPasswordError` where the password is too short, too long, too uniform, or made of the address."""
    plain = _normal(password)
    if not MIN_LENGTH <= len(plain) <= MAX_LENGTH:
        raise WeakPasswordError(
            f"the password has {len(plain)} characters; expected {MIN_LENGTH} to {MAX_LENGTH}. A few words make a good one."
        )
    if len(set(plain)) < MIN_DISTINCT:
        raise WeakPasswordError(
            f"the password uses {len(set(plain))} different characters; expected {MIN_DISTINCT} or more"
        )
    name = email.partition("@")[0].lower()
    if len(name) >= 4 and name in plain.lower() and len(plain) - len(name) < MIN_LENGTH:
        raise WeakPasswordError("the password is mostly your e-mail address; choose one that has nothing to do with it")


def _normal(password: str) -> str:
    """NFKC, so that the same password typed on another keyboard hashes the same (SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
