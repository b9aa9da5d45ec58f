"""The status page as HTML, without a browser: what it says, what it refuses, and what it never does."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from rotator.adapters.web import is_loopback
from rotator.adapters.web.page import refresh_seconds
from rotator.core.model import Reason
from rotator.core.standing import CredentialView, Standing
from rotator.ports import LeaseView
from tests.adapters.site import Site, served
from tests.desk import DataDesk
from tests.page.fleet import credential, each_state, fleet
from tests.page.site import page_app
from tests.process.life import new_life
from tests.process.rig import PATIENCE
from tests.secrets_scan import assert_no_secrets

MARKUP: Final = "<script src=//evil.example/x></script><img src=x onerror=alert(1)>\"'>&{{ 7*7 }}"


@contextmanager
def answered(site: Site, path: str, method: str = "GET", **headers: str) -> Iterator[HTTPResponse]:
    """Make one request."""
    connection = HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        yield connection.getresponse()
    finally:
        connection.close()


def html_of(*views: CredentialView, path: str = "/") -> str:
    """Return the page that shows these credentials."""
    with served(page_app(DataDesk(*views))) as site:
        status, content_type, body = site.get(path)
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    return body.decode()


def words_of(html: str) -> str:
    """Return the text of a page, as a screen reader would get it."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("<body")[2]).split())


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        self.found.append((tag, dict(attrs)))


# -- what it says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("household-amsterdam", "valid household-amsterdam generation 1482 Access token 46 min left of 60 min"),
        ("household-amsterdam", "Refresh token 29 days left Next refresh in 24 min Outputs"),
        ("household-amsterdam", "/run/rotator/household-amsterdam.token current"),
        ("household-amsterdam", "hook signal HUP /run/nginx.pid done"),
        ("household-breda", "retrying household-breda"),
        ("household-breda", "try again in 52 s Last error connect: ce-api.example.com refuses connections"),
        ("household-delft", "access token expired retrying household-delft"),
        ("household-delft", "expired 15 min ago"),
        ("household-eindhoven", "reauthorization required household-eindhoven"),
        ("household-eindhoven", "no longer accepted by the server Next log in: rotator login household-eindhoven"),
        ("household-eindhoven", "invalid_grant: Refresh token has been revoked by the user, 3 times in a row"),
        ("household-gouda", "login required household-gouda no token yet"),
        ("household-gouda", "none yet"),
        ("household-haarlem", "suspect household-haarlem"),
        ("household-leiden", "not saved valid household-leiden"),
        ("household-leiden", "save the newest tokens, which only memory holds"),
        ("household-nijmegen", "output failing valid household-nijmegen"),
        ("household-nijmegen", "missing_directory: /srv/app/run is not there; make it"),
        ("household-nijmegen", "and 1 more"),
        ("household-roermond", "ambiguous household-roermond"),
        ("household-tilburg", "refused household-tilburg"),
        ("household-tilburg", "correct client_id or client_secret"),
        ("household-utrecht", "refresh token ends soon valid household-utrecht"),
        ("household-venlo", "a refresh is under way"),
        ("household-zwolle", "starting household-zwolle"),
        ("labelpartner-account-api", "not needed (client credentials)"),
        ("lan-gateway", "clock suspect fuse blown valid lan-gateway"),
        ("staging", "state unreadable staging"),
    ],
)
def test_each_state_is_told_in_words(name: str, said: str) -> None:
    """B32: state, both clocks, next step, last error and outputs are there for somebody who cannot see colours."""
    (view,) = (view for view in each_state() if view.name == name)
    assert said in words_of(html_of(view))


@pytest.mark.parametrize("view", each_state(), ids=lambda view: view.name)
def test_each_credential_has_a_page_of_its_own(view: CredentialView) -> None:
    """It tells all outputs, instants, fingerprints, and the commands that help."""
    said = words_of(html_of(view, path=f"/credentials/{view.name}"))
    assert f"rotator status {view.name}" in said
    assert (f"rotator login {view.name}" in said) == (view.grant == "refresh_token")
    assert view.access_token_fingerprint in said
    for output in view.outputs:
        assert output.name.replace("{name}", view.name) in said
    assert view.text.removesuffix(".") in said


def test_marks_differ_in_shape() -> None:
    """Each level has a mark of its own, so that nobody needs the colour."""
    html = html_of(*each_state())
    rows = re.findall(r'<tr role="row" class="(\w+)" id="c-([^"]+)">.*?href="#i-(\w+)"', html, re.DOTALL)
    assert len(rows) == len(each_state())
    assert {(level, mark) for level, _, mark in rows} == {
        ("act", "act"), ("watch", "watch"), ("watch", "starting"), ("fine", "fine"),
    }  # fmt: skip


def test_nothing_configured_is_told() -> None:
    """A daemon without credentials says what to do."""
    assert "No credentials are configured. Add a table [credentials.NAME]" in words_of(html_of())


def test_a_refused_reload_is_told() -> None:
    """Whoever looks at the page sees that the configuration on disk is not the one in force."""
    desk = DataDesk(credential("one"))
    desk.numbers = replace(desk.numbers, last_reload_good=False)
    with served(page_app(desk)) as site:
        assert "was refused; the one before it stays in force" in words_of(site.get("/")[2].decode())


@pytest.mark.parametrize(
    ("leases", "said"),
    [
        ((LeaseView("rotator-0", held=False), LeaseView("rotator-1", held=False)), "This rotator stands by"),
        (
            (LeaseView("rotator-0", held=False), LeaseView("rotator-1", held=True)),
            "This rotator refreshes what belongs to rotator-1; others refresh",
        ),
        ((LeaseView("rotator-0", held=True),), ""),
        ((), ""),
    ],
)
def test_who_refreshes_is_told(leases: tuple[LeaseView, ...], said: str) -> None:
    """Whoever looks at the page of a rotator that does not hold each Lease is told so."""
    desk = DataDesk(credential("one"))
    desk.numbers = replace(desk.numbers, leases=leases)
    with served(page_app(desk)) as site:
        words = words_of(site.get("/")[2].decode())
    assert said in words
    assert ("This rotator" in words) == (said != "")


def test_a_holder_with_other_credentials_is_named() -> None:
    """C22: whoever looks is told that some credentials are refreshed by nobody, and how that is put right."""
    desk = DataDesk(credential("one"))
    desk.numbers = replace(desk.numbers, leases=(LeaseView("rotator", held=False, stranger="pod-b"),))
    with served(page_app(desk)) as site:
        words = words_of(site.get("/")[2].decode())
    assert "pod-b, which holds the Lease rotator, has other credentials in its configuration" in words
    assert "or each a Lease of its own ( kubernetes.lease )" in words


def test_an_unknown_credential_is_a_404_in_words() -> None:
    """A bookmark of a credential that was removed says so."""
    with served(page_app(DataDesk())) as site:
        status, _, body = site.get("/credentials/gone")
    assert status == 404
    assert "No credential is called that." in words_of(body.decode())


def test_search_filter_and_order_are_in_the_address() -> None:
    """What is looked for can be bookmarked, and every link keeps it."""
    html = html_of(*fleet(300), path="/?q=household&show=fine&sort=name&live=off")
    assert '<input id="q" name="q" type="search" value="household"' in html
    assert "1 to 100 of 286" in words_of(html)
    assert 'href="?q=household&amp;show=fine&amp;sort=name&amp;live=off&amp;page=2"' in html
    assert 'href="?q=household&amp;show=act&amp;sort=name&amp;live=off"' in html
    assert '<meta http-equiv="refresh"' not in html


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=9999999999", "page=x", "page=²", "sort=x", "show=x", "q=+", "=", "q=%FF%00"]
)
def test_nonsense_in_the_address_is_nothing(query: str) -> None:
    """An address that was typed wrong shows the list."""
    assert "household-1" in html_of(credential("household-1"), path=f"/?{quote(query, safe='=+%')}")


def test_without_script_the_page_refreshes_itself() -> None:
    """The refresh of those who run no script is not felt by those who do, and can be switched off."""
    html = html_of(credential("one"))
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in html
    assert 'data-seconds="5"' in html
    assert 'data-seconds="0"' in html_of(credential("one"), path="/?live=off")
    assert [refresh_seconds(number) for number in (1, 10_000, 100_000)] == [5, 10, 100]


# -- what it never does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/?q={text}", "/?page={text}&sort={text}&show={text}", "/credentials/household"])
def test_markup_from_elsewhere_stays_text(path: str) -> None:
    """Whatever a hostile server, a file name or an address holds, no element and no attribute comes of it."""

    def elements(text: str) -> list[tuple[str, list[str]]]:
        output = replace(each_state()[0].outputs[0], name=text, current=False, failures=2, reason=text, text=text)
        view = credential(
            text, standing=Standing.REFUSED, reason=text, text=text, failures=2, next_why=text, outputs=(output,),
            grant=text, access_token_fingerprint=text, refresh_token_fingerprint=text,
        )  # fmt: skip
        desk = DataDesk(view)
        desk.credentials["household"] = view
        with served(page_app(desk)) as site:
            body = site.get(path.replace("{text}", quote(text)))[2].decode()
        assert text in unescape(body)
        return [(tag, sorted(attributes)) for tag, attributes in Elements(body).found]

    assert elements(MARKUP) == elements("harmless")


def test_text_that_runs_backwards_is_fenced_in() -> None:
    """An error text with an override of the writing direction turns round nothing but itself."""
    text = "\u202e evil"
    assert f"<bdi>other_refusal: {text}</bdi>" in html_of(credential("one", reason=Reason.OTHER_REFUSAL, text=text))


def test_nothing_comes_from_elsewhere() -> None:
    """Every address in the pages is relative: it works behind a proxy's path, and nobody else hears of the visit."""
    for html in (html_of(*fleet(150)), html_of(*each_state(), path="/credentials/staging")):
        for tag, attributes in Elements(html).found:
            for name in ("href", "src", "action"):
                assert not re.match(r"/|[a-z]+:", attributes.get(name) or ""), (tag, attributes)
            assert not {name for name in attributes if name.startswith("on")} | {"style"} & set(attributes)


@pytest.mark.parametrize("path", ["/", "/credentials/one", "/credentials/gone"])
def test_headers_of_a_page(path: str) -> None:
    """Nothing is kept by caches, nothing runs that is not ours, nobody shows us in a frame."""
    with served(page_app(DataDesk(credential("one")))) as site, answered(site, path) as answer:
        policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
        assert answer.headers["cache-control"] == "no-store"
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("base-uri") == "'none'"
    assert policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/static/x", "/status", "/metrics", "/livez", "/x"])
def test_headers_of_every_answer(path: str) -> None:
    """No answer is taken for another type, framed, or used by another site."""
    with served(page_app(DataDesk(credential("one")))) as site, answered(site, path) as answer:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/credentials/one", "/static/page.css"])
def test_pages_are_only_looked_at(method: str, path: str) -> None:
    """Nothing can be done by way of the page."""
    with served(page_app(DataDesk(credential("one")))) as site, answered(site, path, method) as answer:
        assert answer.status == 405


@pytest.mark.parametrize("path", ["/", "/credentials/one", "/static/page.css"])
def test_head_is_get_without_the_body(path: str) -> None:
    """A monitor may ask for the headers alone."""
    with served(page_app(DataDesk(credential("one")))) as site:
        with answered(site, path, "HEAD") as head:
            assert (head.status, head.read()) == (200, b"")
        with answered(site, path) as got:
            assert dict(got.headers) | {"date": ""} == dict(head.headers) | {"date": ""}


def test_files_are_cached_for_as_long_as_they_are_the_same() -> None:
    """The pages name a file by what is in it, so a browser keeps it for ever, and a new version is fetched at once."""
    with served(page_app(DataDesk(credential("one")))) as site:
        page = site.get("/")[2].decode()
        addresses = re.findall(r'(?:href|src)="(static/[^"]+)"', page)
        assert [address.partition("?")[0] for address in addresses] == [
            "static/icon.svg", "static/page.css", "static/page.js",
        ]  # fmt: skip
        for address in addresses:
            with answered(site, f"/{address}") as answer:
                assert (answer.status, answer.headers["cache-control"].endswith("immutable")) == (200, True)
                tag = answer.headers["etag"]
            bare = f"/{address.partition('?')[0]}"
            with answered(site, bare, **{"If-None-Match": tag}) as again:
                assert (again.status, again.headers["cache-control"]) == (304, "no-cache")
        assert site.get("/static/list.html")[0] == 404


# -- who may ask -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:9774", "LOCALHOST", "127.0.0.1:9774", "[::1]:9774", "192.0.2.7", "[::1]"])
def test_a_loopback_address_answers_to_its_own_names(host: str) -> None:
    """Whoever comes by way of a tunnel or by address is served."""
    with served(page_app(DataDesk(), own_names_only=True)) as site:
        assert site.get("/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example:9774", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
def test_a_loopback_address_answers_to_no_other_name(host: str, path: str) -> None:
    """A web site whose name suddenly means 127.0.0.1 (DNS rebinding) reads nothing; any other address is open."""
    with served(page_app(DataDesk(credential("one")), own_names_only=True)) as site:
        status, _, body = site.get(path, Host=host)
        assert (status, b"one" in body.partition(b"and IP")[0]) == (421, False)
    with served(page_app(DataDesk(credential("one")))) as site:
        assert site.get(path, Host=host)[0] == 200


def test_only_loopback_is_loopback() -> None:
    """Any other address can be reached from elsewhere, under whatever name people gave it."""
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "rotator")] == [False] * 4  # noqa: S104


def test_the_page_can_be_switched_off() -> None:
    """Then there is nothing but what machines read."""
    with served(page_app(DataDesk(credential("one")), status_page=False)) as site:
        paths = ("/", "/credentials/one", "/static/page.css", "/metrics", "/livez", "/readyz", "/status")
        assert [site.get(path)[0] for path in paths] == [404, 404, 404, 200, 200, 200, 200]


@pytest.mark.parametrize("on", [True, False])
def test_the_daemon_shows_the_page_unless_told_not_to(on: bool, tmp_path: Path) -> None:
    """`metrics.status_page` decides, and a real daemon's page shows no secret."""
    with new_life(tmp_path) as life:
        text = life.config.read_text()
        life.config.write_text(text.replace("[metrics]", f"[metrics]\nstatus_page = {str(on).lower()}"))
        life.server.sandbox.change(access_lifetime=3600)
        life.put_pair(age=0)
        with life.daemon() as daemon:
            daemon.wait_until(life.has_good_token, "the token is published")
            page = daemon.page("/") + daemon.page("/credentials/home")
    assert_no_secrets(page)
    assert ("home" in page and "valid" in page and "29 days left" in page) is on


# -- what it costs ---------------------------------------------------------------------------------------


def test_a_page_that_nobody_opens_costs_no_import() -> None:
    """The page's code and the template engine are loaded when somebody first asks for a page."""
    code = (
        "import sys, rotator.cli.composition; sys.exit(bool({'jinja2', 'rotator.adapters.web.page'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_crowd_of_viewers_holds_up_no_probe() -> None:
    """Pages of a large fleet are made one after another, in a thread: meanwhile the probes answer at once."""
    with served(page_app(DataDesk(*fleet(2000)))) as site, ThreadPoolExecutor(50) as pool:
        pages = [pool.submit(site.get, "/", 60) for _ in range(45)]
        slowest, asked = 0.0, 0
        while not all(page.done() for page in pages):
            began = time.monotonic()
            assert site.get("/livez")[0] == 200
            slowest, asked = max(slowest, time.monotonic() - began), asked + 1
        assert {page.result()[0] for page in pages} == {200}
    assert asked > 10
    assert slowest < 2


def test_a_viewer_who_is_gone_costs_nothing() -> None:
    """Whoever asks again before the answer has come does not have both made."""
    desk = DataDesk(*fleet(2000))
    looked = 0

    class Counting(DataDesk):
        def views(self) -> Iterator[CredentialView]:
            nonlocal looked
            looked += 1
            return desk.views()

    with served(page_app(Counting())) as site:
        for _ in range(30):
            site.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").close()
        assert site.get("/")[0] == 200
    assert looked < 30
