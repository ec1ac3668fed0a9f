"""The credential vault: secrets of exchanges under envelope encryption.

Each secret is sealed with AES-256-GCM under a data key of its own; the data key is wrapped with AES-256-GCM under a
versioned master key (NIST SP 800-38D; 96-bit random nonces, a key seals one message). Both bind the row's user,
account and name as additional data, so a row copied to another user or renamed does not open. The master keys are in
the settings or in a file beside the database, never inside it.

    vault = Vault(settings())
    session.add(vault.seal(user_id, account_id, "api_secret", secret))
    secret = vault.open(row)        # SecretStr: it does not show in logs or reprs
"""

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from trading_platform.identifiers import AccountId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.group import Credential

KEY_BYTES = 32
NONCE_BYTES = 12
MASTER_KEYS_FILE = "master-keys.json"


class VaultError(RuntimeError):
    """A secret cannot be opened or a master key cannot be used. The message never holds key material."""


class Vault:
    """Seals and opens secrets; holds the master keys of one process in memory."""

    def __init__(self, settings: Settings) -> None:
        self._master_keys = load_master_keys(settings)

    @property
    def newest_version(self) -> int:
        """The master key that seals new secrets."""
        return max(self._master_keys)

    def seal(
        self, user_id: UserId, account_id: AccountId, name: str, secret: SecretStr | str,
        expires_at: datetime | None = None,
    ) -> Credential:  # fmt: skip
        """A row, not yet in any session, that holds `secret` under the newest master key.

        `expires_at`: of a session, after which its account counts as not logged in.
        """
        plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        data_key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
        row = Credential(
            user_id=user_id,
            account_id=account_id,
            name=name,
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            nonce=nonce,
            ciphertext=AESGCM(data_key).encrypt(nonce, plain.encode(), _binding(user_id, account_id, name)),
        )
        self._wrap(row, data_key)
        return row

    def open(self, row: Credential) -> SecretStr:
        """The secret of a row. Raises `VaultError` where the row was altered, moved, or sealed by an unknown key."""
        binding = _binding(row.user_id, row.account_id, row.name)
        try:
            return SecretStr(AESGCM(self._unwrap(row)).decrypt(row.nonce, row.ciphertext, binding).decode())
        except InvalidTag as error:
            raise _altered(row) from error

    def open_all(self, session: Session, user_id: UserId, account_id: AccountId) -> dict[str, SecretStr]:
        """{name: secret} of one account, from a session on its group."""
        rows = session.scalars(
            select(Credential).where(Credential.user_id == user_id, Credential.account_id == account_id)
        )
        return {row.name: self.open(row) for row in rows}

    def rotate(self, session: Session) -> int:
        """Wrap every data key of the group under the newest master key; returns how many rows changed.

        Secrets themselves stay sealed throughout. Run it for every group before an old master key is taken away.
        """
        rows = session.scalars(
            select(Credential).where(Credential.master_key_version != self.newest_version).with_for_update()
        ).all()
        for row in rows:
            self._wrap(row, self._unwrap(row))
        return len(rows)

    def _wrap(self, row: Credential, data_key: bytes) -> None:
        version = self.newest_version
        row.wrap_nonce = secrets.token_bytes(NONCE_BYTES)
        row.wrapped_key = AESGCM(self._master_keys[version]).encrypt(
            row.wrap_nonce, data_key, _binding(row.user_id, row.account_id, row.name, str(version))
        )
        row.master_key_version = version

    def _unwrap(self, row: Credential) -> bytes:
        version = row.master_key_version
        if version not in self._master_keys:
            raise VaultError(
                f"credential {row.name!r} of account {row.account_id!r} is sealed under master key {version}, but only "
                f"{sorted(self._master_keys)} are known; put that version back into TP_MASTER_KEYS"
            )
        binding = _binding(row.user_id, row.account_id, row.name, str(version))
        try:
            return AESGCM(self._master_keys[version]).decrypt(row.wrap_nonce, row.wrapped_key, binding)
        except InvalidTag as error:
            raise _altered(row) from error


def load_master_keys(settings: Settings) -> dict[int, bytes]:
    """{version: 32 bytes}: TP_MASTER_KEYS, else `<home>/secrets/master-keys.json`, made (0600) on first use."""
    if settings.master_keys is not None:
        return _parsed(settings.master_keys.get_secret_value(), "TP_MASTER_KEYS")
    path = settings.secrets_dir / MASTER_KEYS_FILE
    if not path.exists():
        _write_new(path, {1: secrets.token_bytes(KEY_BYTES)})
    return _parsed(path.read_text(), str(path))


def add_master_key(settings: Settings) -> int:
    """Add a new version to the key file; returns it. Processes started before must restart to open what it seals."""
    if settings.master_keys is not None:
        raise VaultError("master keys come from TP_MASTER_KEYS: add the next version there and restart")
    path = settings.secrets_dir / MASTER_KEYS_FILE
    keys = load_master_keys(settings)
    version = max(keys) + 1
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _write_new(fresh, {**keys, version: secrets.token_bytes(KEY_BYTES)})
    fresh.replace(path)
    return version


def _parsed(text: str, where: str) -> dict[int, bytes]:
    expected = f"{where} must be JSON {{version: base64 of {KEY_BYTES} random bytes}}"
    try:
        found = json.loads(text)
        keys = {int(version): base64.b64decode(value, validate=True) for version, value in found.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise VaultError(f"{expected}; it could not be read ({type(error).__name__})") from None
    if not keys or any(len(key) != KEY_BYTES for key in keys.values()):
        raise VaultError(f"{expected}; found versions {sorted(keys)} with other lengths")
    return keys


def _write_new(path: Path, keys: Mapping[int, bytes]) -> None:
    """Write a key file that appears complete or not at all, and never over one that another process made first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            json.dump({str(version): base64.b64encode(key).decode() for version, key in keys.items()}, handle)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def _binding(*parts: str) -> bytes:
    """Additional data: every part with its length, so that no two lists of parts read the same."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in ("vault", *parts))


def _altered(row: Credential) -> VaultError:
    return VaultError(
        f"credential {row.name!r} of account {row.account_id!r} does not open: the row was altered, copied from another "
        "user or account, or sealed under another master key of the same version. Enter the secret again."
    )
