"""TLS and proxies of the token endpoint: whom it trusts, who it is, which way it goes."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.endpoint import EndpointSettings, HttpTokenEndpoint, Network, probe
from rotator.adapters.endpoint.trust import TlsFiles
from rotator.core.model import Answer, Granted, Reason, TokenRequest, Unavailable
from tests.adapters.wire import Authority, Peer, Server, answering, dead_port
from tests.needs import needs
from tests.process.rig import PATIENCE
from tests.secrets_scan import planted, secrets_in

BODY = b'{"access_token": "a", "refresh_token": "r", "expires_in": 60}'
PASSWORD = planted("proxy-password")


@dataclass
class Certificates:
    """Two authorities, and what the first has issued."""

    old: Authority
    new: Authority
    server: ssl.SSLContext
    renewed: ssl.SSLContext
    misnamed: ssl.SSLContext
    client: tuple[Path, Path]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the certificates once: each costs a process."""
    needs("openssl")
    old = Authority(tmp_path_factory.mktemp("old"), "old-authority")
    new = Authority(tmp_path_factory.mktemp("new"), "new-authority")
    return Certificates(
        old,
        new,
        old.server_context("server"),
        new.server_context("server"),
        old.server_context("misnamed", "DNS:elsewhere.example"),
        old.issue("client"),
    )


@dataclass
class Client:
    """Makes endpoints that share a network and repeat nothing, and notes what they report."""

    network: Network
    stopping: threading.Event
    notices: list[tuple[str, str]]

    def endpoint(self, url: str, **options: Any) -> HttpTokenEndpoint:
        """Return an endpoint with these settings."""
        return HttpTokenEndpoint(
            EndpointSettings(url, **options),
            time.time,
            self.stopping,
            lambda *told: self.notices.append(told),
            self.network,
        )

    def request(self, url: str, **options: Any) -> Answer:
        """Send a request like no other, so that no floor applies to it."""
        return ask(self.endpoint(url, **options))


@pytest.fixture
def client() -> Generator[Client]:
    """Give a client, and close its connections at the end."""
    client = Client(Network(), threading.Event(), [])
    client.stopping.set()
    yield client
    client.network.close()


def ask(endpoint: HttpTokenEndpoint) -> Answer:
    """Send a request like no other, so that no floor applies to it."""
    return endpoint.request(TokenRequest((("nonce", os.urandom(8).hex()),)), ())


def undelivered(answer: Answer, reason: Reason) -> str:
    """Demand that nothing can have been carried out; return the text, which is one clean line."""
    assert isinstance(answer, Unavailable), answer
    assert (answer.reason, answer.delivered) == (reason, False), answer
    assert answer.text
    assert "\n" not in answer.text
    assert not secrets_in(answer.text)
    return answer.text


def replace_file(source: Path | bytes, target: Path) -> None:
    """Put a new file in another's place, as configuration tools do."""
    temporary = target.with_suffix(".new")
    temporary.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    temporary.replace(target)


def test_a_private_authority_is_trusted_if_configured(client: Client, certificates: Certificates) -> None:
    """F13: `ca_file` is our own setting; without it the same server is refused, and the text says why."""
    with Server(answering(BODY), certificates.server) as server:
        assert isinstance(client.request(server.url, ca_file=certificates.old.file), Granted)
        text = undelivered(client.request(server.url), Reason.TLS)

    assert text.startswith(f"127.0.0.1:{server.port}: ")
    assert "certificate" in text
    assert "ca_file" in text
    assert len(server.requests) == 1


def test_a_certificate_for_another_name_is_refused(client: Client, certificates: Certificates) -> None:
    """F13: trusting an authority never turns the check of the name off."""
    with Server(answering(BODY), certificates.misnamed) as server:
        text = undelivered(client.request(server.url, ca_file=certificates.old.file), Reason.TLS)

    assert "127.0.0.1" in text
    assert server.requests == []


def test_the_system_s_trust_store_is_the_default(
    client: Client, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """F14 F15: without `ca_file` the system's store counts, wherever SSL_CERT_FILE puts it, and as it is now."""
    store = tmp_path / "store.pem"
    shutil.copy(certificates.new.file, store)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    client.network = Network()
    with Server(answering(BODY), certificates.server) as server:
        endpoint = client.endpoint(server.url)
        undelivered(ask(endpoint), Reason.TLS)
        replace_file(certificates.old.file, store)

        assert isinstance(ask(endpoint), Granted)
    assert [event for event, _ in client.notices] == ["tls_files_reloaded"]


@dataclass
class Store:
    """A trust store of the system's: a bundle and a directory."""

    bundle: Path
    directory: Path


@pytest.fixture
def system(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Give a client a system whose trust store holds nothing yet."""
    store = Store(tmp_path / "store.pem", tmp_path / "certs")
    store.directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(store.bundle))
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'none'}:{store.directory}")
    client.network = Network()
    return store


@pytest.mark.parametrize("content", [b"", b"no PEM at all", None], ids=["empty", "garbage", "deleted"])
@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside-a-directory"])
def test_a_broken_trust_store_leaves_the_old_one_in_use(
    client: Client, certificates: Certificates, system: Store, content: bytes | None, *, other: bool
) -> None:
    """F15: as a `ca_file`: what became unusable is reported once, and costs no refresh; a good one heals it."""
    shutil.copy(certificates.old.file, system.bundle)
    if other:
        shutil.copy(certificates.new.file, system.directory / "0123abcd.0")
    with Server(answering(BODY), certificates.server) as server:
        endpoint = client.endpoint(server.url)
        assert isinstance(ask(endpoint), Granted)
        if content is None:
            system.bundle.unlink()
        else:
            replace_file(content, system.bundle)

        assert isinstance(ask(endpoint), Granted)
        assert isinstance(ask(endpoint), Granted)
        ((event, text),) = client.notices
        replace_file(certificates.old.file, system.bundle)
        assert isinstance(ask(endpoint), Granted)
    assert event == "tls_files_refused"
    assert text.startswith(f"the system's trust store cannot be used (no certificate authority in {system.bundle}: ")
    assert client.notices[1][0] == "tls_files_reloaded"


def test_a_trust_store_that_appears_is_used(client: Client, certificates: Certificates, system: Store) -> None:
    """F14 F15: without any authority nothing is sent and the text says so; one that is installed is noticed."""
    with Server(answering(BODY), certificates.server) as server:
        endpoint = client.endpoint(server.url)
        text = undelivered(ask(endpoint), Reason.BAD_INPUT)
        assert "no certificate authority in" in text
        assert "set ca_file" in text
        shutil.copy(certificates.old.file, system.bundle)

        assert isinstance(ask(endpoint), Granted)
        assert len(server.requests) == 1


def test_a_directory_alone_is_a_trust_store(client: Client, certificates: Certificates, system: Store) -> None:
    """F14: certificates that OpenSSL finds by their hash need no bundle beside them, and may come and go."""
    subject = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash", "-in", certificates.old.file],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    shutil.copy(certificates.old.file, system.directory / f"{subject}.0")
    with Server(answering(BODY), certificates.server) as server:
        assert isinstance(client.request(server.url), Granted)
        shutil.copy(certificates.new.file, system.directory / "0123abcd.0")
        assert isinstance(client.request(server.url), Granted)


def test_speaking_tls_to_a_plain_port_is_a_tls_failure(client: Client) -> None:
    """F1: a port without TLS behind https:// is told from a dead server."""

    def plain(peer: Peer) -> None:
        peer.socket.recv(100)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(plain) as server:
        undelivered(client.request(server.url.replace("http:", "https:")), Reason.TLS)


def test_one_context_serves_all_requests_and_endpoints(client: Client, certificates: Certificates) -> None:
    """F7 F8 F10: a TLS context is made once for a set of files, never for a request."""
    files = TlsFiles(ca_file=certificates.old.file)
    contexts = {id(client.network.contexts.get(files, print)) for _ in range(50)}
    with Server(answering(BODY), certificates.server) as server:
        for _ in range(3):
            assert isinstance(client.request(server.url, ca_file=certificates.old.file), Granted)

    assert contexts == {id(client.network.contexts.get(files, print))}
    assert server.connections == 1


def test_a_changed_authority_is_used_by_the_next_request(
    client: Client, certificates: Certificates, tmp_path: Path
) -> None:
    """F15: a rotated authority is read when its file has changed, and said so; no connection of old is used."""
    ca_file = tmp_path / "ca.pem"
    shutil.copy(certificates.old.file, ca_file)
    with Server(answering(BODY), certificates.renewed) as renewed, Server(answering(BODY), certificates.server) as old:
        endpoint = client.endpoint(renewed.url, ca_file=ca_file)
        undelivered(ask(endpoint), Reason.TLS)
        assert isinstance(client.request(old.url, ca_file=ca_file), Granted)
        replace_file(certificates.new.file, ca_file)

        assert isinstance(ask(endpoint), Granted)
        undelivered(client.request(old.url, ca_file=ca_file), Reason.TLS)
    assert client.notices == [("tls_files_reloaded", f"TLS files have changed and are in use: {ca_file}")]


@pytest.mark.parametrize("content", [b"", b"no PEM at all", None], ids=["empty", "garbage", "deleted"])
def test_a_bad_new_authority_leaves_the_old_one_in_use(
    client: Client, certificates: Certificates, tmp_path: Path, content: bytes | None
) -> None:
    """F15: a file that has become unusable is reported once, and costs no refresh; a good one heals it."""
    ca_file = tmp_path / "ca.pem"
    shutil.copy(certificates.old.file, ca_file)
    with Server(answering(BODY), certificates.server) as server:
        endpoint = client.endpoint(server.url, ca_file=ca_file)
        assert isinstance(ask(endpoint), Granted)
        if content is None:
            ca_file.unlink()
        else:
            replace_file(content, ca_file)

        assert isinstance(ask(endpoint), Granted)
        assert isinstance(ask(endpoint), Granted)
        ((event, text),) = client.notices
        replace_file(certificates.old.file, ca_file)
        assert isinstance(ask(endpoint), Granted)
    assert event == "tls_files_refused"
    assert text.startswith(f"ca_file {ca_file} cannot be used (")
    assert client.notices[1][0] == "tls_files_reloaded"


@pytest.mark.parametrize("content", [b"", b"no PEM at all", None], ids=["empty", "garbage", "missing"])
def test_an_authority_that_never_was_usable_sends_nothing(
    client: Client, tmp_path: Path, content: bytes | None
) -> None:
    """F15: at the first request a bad file is an error that names it and the cure, and heals when it does."""
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)

    text = undelivered(client.request("https://127.0.0.1:9/", ca_file=ca_file), Reason.BAD_INPUT)

    assert text.startswith(f"ca_file {ca_file} cannot be used (")
    assert text.endswith(": give readable, unencrypted PEM files")


def test_a_client_certificate_is_shown_where_asked_for(client: Client, certificates: Certificates) -> None:
    """F8: with a client certificate the server lets us in; without, nothing was carried out and the text says so."""
    certificate, key = certificates.client
    demanding = certificates.old.server_context("demanding")
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.load_verify_locations(certificates.old.file)
    ca_file = certificates.old.file
    with Server(answering(BODY), demanding) as server:
        shown = client.request(server.url, ca_file=ca_file, client_certificate=certificate, client_key=key)
        assert isinstance(shown, Granted)
        for _ in range(8):  # the refusal may come before our form has left, or after
            text = undelivered(client.request(server.url, ca_file=ca_file), Reason.TLS)
            assert "client certificate" in text

    assert len(server.requests) == 1


def test_a_client_certificate_without_its_key_is_an_error(client: Client, certificates: Certificates) -> None:
    """F15: a certificate and a key that do not belong together are named both."""
    certificate, _ = certificates.client
    key = certificates.old.directory / "server.key"

    text = undelivered(
        client.request("https://127.0.0.1:9/", client_certificate=certificate, client_key=key), Reason.BAD_INPUT
    )

    assert f"client_certificate {certificate} with client_key {key} cannot be used" in text


# Proxies.


def tunnel(peer: Peer) -> None:
    """Let a CONNECT through to wherever it asks."""
    asked = peer.read()
    assert asked
    host, port = asked.line.split()[1].split(":")
    peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    with socket.create_connection((host, int(port)), PATIENCE) as beyond:
        back = threading.Thread(target=_copy, args=(beyond, peer.socket), daemon=True)
        back.start()
        _copy(peer.socket, beyond)
        back.join(PATIENCE)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one side may be gone already
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def refusing(peer: Peer) -> None:
    """Refuse a CONNECT for want of a password."""
    peer.read()
    peer.answer(b"", "407 Proxy Authentication Required")


def silent(peer: Peer) -> None:
    """Take a CONNECT and say nothing."""
    peer.read()
    peer.wait_for_close()


def test_a_request_goes_through_the_tunnel_of_a_proxy(client: Client, certificates: Certificates) -> None:
    """F13: the proxy sees where we go and its own password, and no form."""
    with Server(answering(BODY), certificates.server) as server, Server(tunnel) as proxy:
        answer = client.request(
            server.url, ca_file=certificates.old.file, proxy=f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"
        )
        client.network.close()

    assert isinstance(answer, Granted)
    (asked,) = proxy.requests
    assert asked.line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
    assert asked.headers["proxy-authorization"] == f"Basic {b64encode(f'user:{PASSWORD}'.encode()).decode()}"
    assert "nonce" in dict(server.requests[0].form)


@pytest.mark.parametrize("script", [refusing, silent])
def test_a_proxy_that_lets_nothing_through_is_named(client: Client, script: Any) -> None:
    """F1 J5: what fails on the way to the server was not delivered; the proxy is named, its password is not."""
    with Server(script) as proxy:
        url = f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"
        text = undelivered(client.request("https://127.0.0.1:9/", proxy=url, read_timeout=0.3), Reason.PROXY)

    assert text.startswith(f"proxy 127.0.0.1:{proxy.port}: ")


def test_a_dead_proxy_is_named(client: Client) -> None:
    """F1: a proxy that cannot be reached is told from a server that cannot."""
    with dead_port() as port:
        text = undelivered(client.request("https://127.0.0.1:9/", proxy=f"http://127.0.0.1:{port}"), Reason.PROXY)

    assert text.startswith(f"proxy 127.0.0.1:{port}: ")


def test_the_password_of_a_proxy_shows_nowhere(client: Client) -> None:
    """J5: not in what the settings print, not in the text about a URL that is none."""
    configured = EndpointSettings("https://127.0.0.1:9/", proxy=f"socks5://user:{PASSWORD}@127.0.0.1")

    assert not secrets_in(repr(configured))
    with pytest.raises(ValueError, match=r"^proxy is no URL") as caught:
        client.endpoint(configured.token_url, proxy=configured.proxy)
    assert not secrets_in(str(caught.value))


def test_proxies_of_the_environment_count_only_on_request(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """F13: the environment's proxies are one documented switch, and no_proxy is heeded."""
    with dead_port() as port, Server(answering(BODY)) as server:
        monkeypatch.setenv("http_proxy", f"http://user:{PASSWORD}@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)

        assert isinstance(client.request(server.url), Granted)
        undelivered(client.request(server.url, use_environment_proxies=True), Reason.PROXY)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert isinstance(client.request(server.url, use_environment_proxies=True), Granted)


def test_a_plain_request_goes_through_a_proxy_whole(client: Client) -> None:
    """F13: to an http:// server the proxy is asked for the whole URL."""
    with Server(answering(BODY)) as proxy:
        answer = client.request("http://token.example/v2/token", proxy=f"http://127.0.0.1:{proxy.port}")

    assert isinstance(answer, Granted)
    assert proxy.requests[0].line == "POST http://token.example/v2/token HTTP/1.1"


def test_a_probe_tells_an_untrusted_certificate(certificates: Certificates) -> None:
    """The online check finds TLS trouble before a refresh does."""
    with Server(answering(b"", status="400 Bad Request"), certificates.server) as server:
        problem, _ = probe(EndpointSettings(server.url))
        fine, text = probe(EndpointSettings(server.url, ca_file=certificates.old.file))

    assert problem is not None
    assert problem.reason is Reason.TLS
    assert (fine, "can be reached" in text) == (None, True)
