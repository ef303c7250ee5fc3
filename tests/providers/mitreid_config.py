"""Configure MITREid Connect 1.3.4: the files of its web application, edited as an operator would.

Everything is below ``WEB-INF``: issuer, database, signing keys, and the SQL that fills the
database at the first start.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.providers.provider import USERS, Addresses

# What the bootstrap's temporary tables have no columns for; the first is rotation.
_MORE = """
UPDATE client_details
  SET reuse_refresh_tokens = false, token_endpoint_auth_method = 'SECRET_BASIC';
INSERT INTO client_post_logout_redirect_uri (owner_id, post_logout_redirect_uri)
  SELECT id, '{}' FROM client_details;
"""
SCOPES = ("openid", "profile", "email", "offline_access")


def configure(
    app: Path, addresses: Addresses, *, issuer: str, database: Path, client: tuple[str, str]
) -> None:
    """Before the first start. ``client``: id and secret.

    The database is in files, so that it outlives a restart.
    """
    web_inf = app / "WEB-INF"
    replace(
        web_inf / "server-config.xml", "http://localhost:8080/openid-connect-server-webapp/", issuer
    )
    url = f"jdbc:hsqldb:file:{database}/oic;hsqldb.write_delay=false;hsqldb.lock_file=false;"
    replace(web_inf / "data-context.xml", "jdbc:hsqldb:mem:oic;", url)
    replace(web_inf / "data-context.xml", '"showSql" value="true"', '"showSql" value="false"')
    sql = web_inf / "classes/db/hsql"
    _replace_inserts(sql / "clients.sql", _clients(*client, addresses.redirect_uri))
    _replace_inserts(sql / "users.sql", _users())
    replace(
        sql / "clients.sql",
        "COMMIT;",
        f"{_MORE.format(addresses.post_logout_redirect_uri)}\nCOMMIT;",
    )


def keep_database(app: Path) -> None:
    """Before every other start: the scripts that fill the database are for the first."""
    file = app / "WEB-INF/data-context.xml"
    whole = r"<jdbc:initialize-database.*?</jdbc:initialize-database>"
    file.write_text(re.sub(whole, "", file.read_text(), count=1, flags=re.DOTALL))


def use_new_key(app: Path, key_id: str) -> None:
    """A new RSA key as the only and default one."""
    file = app / "WEB-INF/crypto-config.xml"
    text = re.sub(r'(KeyId" value=")[^"]*"', rf'\g<1>{key_id}"', file.read_text())
    file.write_text(text)
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(private))
    key = {name: value for name, value in key.items() if name != "key_ops"}
    keys = {"keys": [{**key, "kid": key_id, "alg": "RS256"}]}
    (app / "WEB-INF/classes/keystore.jwks").write_text(json.dumps(keys))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new))


def _replace_inserts(file: Path, inserts: str) -> None:
    """Keep the file's head and its merging part, replace what it inserts by default."""
    head, _, rest = file.read_text().partition("START TRANSACTION;")
    tail = rest[rest.index("MERGE INTO") :]
    file.write_text(f"{head}START TRANSACTION;\n{inserts}\n{tail}")


def _clients(client_id: str, secret: str, redirect_uri: str) -> str:
    columns = "client_id, client_secret, client_name, dynamically_registered, "
    columns += "access_token_validity_seconds, id_token_validity_seconds, allow_introspection"
    grants = ("authorization_code", "refresh_token")
    return "\n".join(
        [
            _insert(
                "client_details", columns, [(client_id, secret, "Hub", False, 3600, 600, True)]
            ),
            _insert("client_scope", "owner_id, scope", [(client_id, s) for s in SCOPES]),
            _insert("client_redirect_uri", "owner_id, redirect_uri", [(client_id, redirect_uri)]),
            _insert("client_grant_type", "owner_id, grant_type", [(client_id, g) for g in grants]),
        ]
    )


def _users() -> str:
    names = [*USERS, "admin"]
    roles = [(name, "ROLE_USER") for name in names] + [("admin", "ROLE_ADMIN")]
    people = [
        (f"subject-of-{n}", n, f"{n.title()} Example", f"{n}@example.org", True) for n in names
    ]
    return "\n".join(
        [
            _insert("users", "username, password, enabled", [(n, n, True) for n in names]),
            _insert("authorities", "username, authority", roles),
            _insert("user_info", "sub, preferred_username, name, email, email_verified", people),
        ]
    )


def _insert(table: str, columns: str, rows: list[tuple[Any, ...]]) -> str:
    """One statement for a temporary table of MITREid's bootstrap; values are the tests' own."""
    values = ", ".join(f"({', '.join(_sql(value) for value in row)})" for row in rows)
    return f"INSERT INTO {table}_TEMP ({columns}) VALUES {values};"  # noqa: S608


def _sql(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()
