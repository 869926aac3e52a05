"""A broker with listeners for TLS, mutual TLS and SASL; its certificates, users and tokens.

The identity provider is a small HTTP server on loopback. It issues unsecured JSON Web Tokens (RFC 7515, appendix A.5),
which a broker without a key set accepts.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it re-exports
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from rillcast.settings import KafkaSettings
from tests.support.kafka_broker import KafkaBroker, running_broker
from tests.support.kafka_cluster import KafkaCluster

USER: Final = "rillcast"
PASSWORD: Final = "correct-horse-battery"  # noqa: S105  of a broker that lives for a minute
KEY_PASSWORD: Final = "staple"  # noqa: S105
_LISTENERS: Final = {"TLS": "SSL", "MUTUAL": "SSL", "SASL": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT"}
_PROPERTIES: Final = """
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.tls.ssl.client.auth=none
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""
_JAAS: Final = """
listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.{name}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
"""


@dataclass(frozen=True)
class SecureKafka:
    """A running broker, and its credentials."""

    broker: KafkaBroker
    cluster: KafkaCluster
    folder: Path
    token_url: str

    def settings(self, way: str, **changes: object) -> KafkaSettings:
        """Return settings that connect by `way`, with `changes`."""
        tls = {"ssl_ca_file": self.folder / "ca.pem"}
        ways: dict[str, tuple[str, dict[str, object]]] = {
            "tls": ("TLS", {"security_protocol": "SSL", **tls}),
            "mutual tls": (
                "MUTUAL",
                {
                    "security_protocol": "SSL",
                    "ssl_certificate_file": self.folder / "client.pem",
                    "ssl_key_file": self.folder / "client.key",
                    "ssl_key_password": KEY_PASSWORD,
                    **tls,
                },
            ),
            "clear": ("CLEAR", self._sasl("SCRAM-SHA-256") | {"security_protocol": "SASL_PLAINTEXT"}),
            "OAUTHBEARER": (
                "SASL",
                {
                    "security_protocol": "SASL_SSL",
                    "sasl_mechanism": "OAUTHBEARER",
                    "oauth_token_url": self.token_url,
                    "oauth_client_id": USER,
                    "oauth_client_secret": PASSWORD,
                    "oauth_scope": "kafka",
                    **tls,
                },
            ),
        }
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            ways[mechanism] = "SASL", self._sasl(mechanism) | tls
        listener, values = ways[way]
        return self.cluster.settings(**{"bootstrap_servers": self.broker.address(listener), **values, **changes})

    def may_only_describe(self, topic: str) -> None:
        """Take every other right to a topic from the user; topics without such a rule are open to everyone."""
        rights = AclOperation.DESCRIBE, AclPermissionType.ALLOW
        rule = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{USER}", "*", *rights)
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap_servers, "log_level": 2})
        for done in admin.create_acls([rule]).values():
            done.result(20)

    @staticmethod
    def _sasl(mechanism: str) -> dict[str, object]:
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": USER,
            "sasl_password": PASSWORD,
        }


@contextmanager
def secure_kafka() -> Iterator[SecureKafka]:
    """Start the broker and the identity provider; stop both afterwards."""
    with TemporaryDirectory(prefix="rillcast-certificates-") as name:
        folder = Path(name)
        _write_certificates(folder)
        properties = _PROPERTIES.format(folder=folder)
        for listener in ("sasl", "clear"):
            properties += _JAAS.format(name=listener, user=USER, password=PASSWORD)
        with running_broker(listeners=_LISTENERS, properties=properties) as broker, _identity_provider() as token_url:
            cluster = KafkaCluster(broker.bootstrap_servers, broker)
            try:
                _add_users(broker.bootstrap_servers)
                yield SecureKafka(broker, cluster, folder, token_url)
            finally:
                cluster.close()


def _write_certificates(folder: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "other-ca.pem")
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("rillcast@clients")
    key = load_pem_private_key(server.private_key_pem.bytes(), None)
    # Java reads PKCS 8 only.
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
    (folder / "broker.pem").write_bytes(plain + chain)
    (folder / "client.pem").write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
    own = load_pem_private_key(client.private_key_pem.bytes(), None)
    secret = BestAvailableEncryption(KEY_PASSWORD.encode())
    (folder / "client.key").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))


def _add_users(bootstrap_servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        change = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        for done in admin.alter_user_scram_credentials([change]).values():
            done.result(20)


@contextmanager
def _identity_provider() -> Iterator[str]:
    """Serve tokens to the client that knows the secret."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _TokenEndpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        given = base64.b64decode(self.headers.get("Authorization", "Basic ").split(" ", 1)[1]).decode()
        if given != f"{USER}:{PASSWORD}" or b"client_credentials" not in body:
            self.send_error(401)
            return
        claims = {"sub": USER, "scope": "kafka", "iat": time.time() - 1, "exp": time.time() + 600}
        token = f"{_part({'alg': 'none'})}.{_part(claims)}."
        answer = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 600}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is http.server's
        """Log nothing."""


def _part(document: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
