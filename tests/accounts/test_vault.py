"""The vault: what is sealed opens for its own row only, whole, and under the key that it names."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from trading_platform.accounts.users import ensure_group
from trading_platform.accounts.vault import Vault, VaultError, add_master_key, load_master_keys
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Credential

ANN, ACCOUNT = UserId("ann"), AccountId("a1")
KEYS = {1: bytes(range(32)), 2: bytes(range(32, 64))}


def settings_with(*versions: int) -> Settings:
    keys = {str(version): base64.b64encode(KEYS[version]).decode() for version in versions}
    return Settings(master_keys=SecretStr(json.dumps(keys)))


VAULT = Vault(settings_with(1))


@given(st.text())
def test_what_goes_in_comes_out_and_never_shows(secret: str) -> None:
    row = VAULT.seal(ANN, ACCOUNT, "api_secret", secret)
    assert VAULT.open(row).get_secret_value() == secret
    if len(secret.encode()) > 4:
        assert secret.encode() not in row.ciphertext + row.wrapped_key
        assert secret not in repr(VAULT.open(row))


def test_an_independent_reader_finds_envelope_encryption_as_documented() -> None:
    row = VAULT.seal(ANN, ACCOUNT, "api_secret", "s3cret")

    def binding(*parts: str) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part.encode() for part in parts)

    data_key = AESGCM(KEYS[1]).decrypt(
        row.wrap_nonce, row.wrapped_key, binding("vault", "ann", "a1", "api_secret", "1")
    )
    assert len(data_key) == 32
    assert AESGCM(data_key).decrypt(row.nonce, row.ciphertext, binding("vault", "ann", "a1", "api_secret")) == b"s3cret"


@pytest.mark.parametrize("field", ["ciphertext", "nonce", "wrapped_key", "wrap_nonce"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_bit_is_found(field: str, position: int) -> None:
    row = VAULT.seal(ANN, ACCOUNT, "api_key", "value")
    changed = bytearray(getattr(row, field))
    changed[position] ^= 1
    setattr(row, field, bytes(changed))
    with pytest.raises(VaultError, match="does not open"):
        VAULT.open(row)


@pytest.mark.parametrize(("field", "value"), [("user_id", "ben"), ("account_id", "a2"), ("name", "api_secret")])
def test_a_row_copied_elsewhere_does_not_open(field: str, value: str) -> None:
    row = VAULT.seal(ANN, ACCOUNT, "api_key", "value")
    setattr(row, field, value)
    with pytest.raises(VaultError, match="copied from another user"):
        VAULT.open(row)


def test_parts_cannot_be_shifted_between_user_and_account() -> None:
    row = VAULT.seal(UserId("ab"), AccountId("c"), "k", "value")
    row.user_id, row.account_id = "a", "bc"
    with pytest.raises(VaultError):
        VAULT.open(row)


def test_two_rows_share_neither_key_nor_nonce() -> None:
    rows = [VAULT.seal(ANN, ACCOUNT, "k", "same") for _ in range(50)]
    for field in ("ciphertext", "nonce", "wrapped_key", "wrap_nonce"):
        assert len({getattr(row, field) for row in rows}) == 50


def test_rotation_moves_rows_to_the_newest_key_and_leaves_the_secret_alone(platform: Databases) -> None:
    ensure_group(platform, GroupId("g1"))
    old, both, new = Vault(settings_with(1)), Vault(settings_with(1, 2)), Vault(settings_with(2))
    with platform.group(GroupId("g1")) as session:
        session.add_all(old.seal(ANN, ACCOUNT, name, name.upper()) for name in ("api_key", "api_secret"))
    with platform.group(GroupId("g1")) as session:
        with pytest.raises(VaultError, match=r"master key 1, but only \[2\]"):
            new.open_all(session, ANN, ACCOUNT)
        sealed = {row.name: row.ciphertext for row in session.scalars(select(Credential))}
        assert both.rotate(session) == 2
    with platform.group(GroupId("g1")) as session:
        found = new.open_all(session, ANN, ACCOUNT)
        assert {name: secret.get_secret_value() for name, secret in found.items()} == {
            "api_key": "API_KEY", "api_secret": "API_SECRET",
        }  # fmt: skip
        assert {row.name: row.ciphertext for row in session.scalars(select(Credential))} == sealed
        assert both.rotate(session) == 0


def test_many_processes_at_once_make_one_private_key_file(tmp_path: Path) -> None:
    settings = Settings(home_dir=tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_master_keys(settings)[1], range(16)))
    assert len(set(found)) == 1
    path = settings.secrets_dir / "master-keys.json"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [file.name for file in path.parent.iterdir()] == ["master-keys.json"]
    assert add_master_key(settings) == 2
    assert load_master_keys(settings)[1] == found[0]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"1": "c2hvcnQ="}', '{"x": ""}', '{"1": 5}', "not json"])
def test_bad_master_keys_are_named_without_being_shown(text: str) -> None:
    with pytest.raises(VaultError, match="must be JSON") as error:
        Vault(Settings(master_keys=SecretStr(text)))
    assert "c2hvcnQ" not in str(error.value)
