"""The way to the broker, step by step: name, connection, TLS, HTTP, credential, clock.

Nothing is changed at the broker: the one call is an empty batch of reports, of which it keeps no
more than that the credential was used.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from agents.clock import Clock
from agents.config import Config, is_loopback
from agents.doctor.findings import Finding, Grade, fail, ok, warn
from agents.protocol import PROTOCOL, REPORTS_PATH, ReportBatch, canonical, encode

TIMEOUT_S = 10.0
EXPIRES_SOON_DAYS = 14.0
SKEW_S = 5.0  #: a clock this far off is told
FAR_SKEW_S = 300.0  #: and this far off spoils certificates and signed tokens
DAY_S = 86400.0
MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker said to the one call."""

    status: int
    code: str  #: of a problem document
    why: str
    protocol: str
    skew_s: float | None  #: this host's time of day minus the broker's; None: it told none
    seconds: float


def broker_findings(config: Config, credential: str | None, clock: Clock) -> Iterator[Finding]:
    """In the order of the way there; ends at the first step that cannot be passed."""
    url = urlsplit(config.broker)
    proxy = proxy_for(url)
    if proxy:
        yield ok("proxy", f"calls to {url.hostname} go through {proxy}")
    else:
        for look in (_name, _connection):
            found = look(url)
            yield found
            if found.grade is Grade.FAIL:
                return
    found = _tls(config, url, through_proxy=bool(proxy))
    yield found
    if found.grade is Grade.FAIL:
        return
    try:
        answer = ask(config, credential, clock)
    except httpx.HTTPError as error:
        why = f"{config.broker} does not answer: {type(error).__name__}: {error}"
        yield fail("broker", why, "look at the firewall and at the proxy's own log")
        return
    yield from _http(config, answer)
    yield _credential(answer, joined=credential is not None)
    yield _skew(answer)


def proxy_for(url: SplitResult) -> str:
    """The proxy that calls to this address go through, or ""."""
    host = url.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return ""
    found = getproxies()
    address = urlsplit(found.get(url.scheme) or found.get("all") or "")
    return f"{address.hostname}:{address.port}" if address.hostname else ""


def port_of(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _name(url: SplitResult) -> Finding:
    host = url.hostname or ""
    try:
        found = socket.getaddrinfo(host, port_of(url), type=socket.SOCK_STREAM)
    except OSError as error:
        fix = "mend `broker` in the configuration, or this host's name service (resolv.conf)"
        return fail("name", f"{host} has no address here: {error}", fix)
    addresses = sorted({str(item[4][0]) for item in found})
    return ok("name", f"{host} is {', '.join(addresses)}")


def _connection(url: SplitResult) -> Finding:
    began = time.monotonic()
    where = f"{url.hostname} port {port_of(url)}"
    try:
        with socket.create_connection((url.hostname or "", port_of(url)), TIMEOUT_S):
            taken = time.monotonic() - began
    except OSError as error:
        fix = "let this host out to that address and port; no inbound port is needed"
        return fail("connection", f"{where} takes no connection: {error}", fix)
    return ok("connection", f"{where} in {taken * 1000:.0f} ms")


# -- TLS ------------------------------------------------------------------------------------------


def _tls(config: Config, url: SplitResult, *, through_proxy: bool) -> Finding:
    if url.scheme != "https":
        fix = "use https for anything but a rehearsal on one machine"
        return warn("tls", "plain http: nothing is encrypted", fix)
    whom = f"the authority in {config.ca_file}" if config.ca_file else "the system's authorities"
    try:
        context = trusted(config)
    except OSError as error:
        fix = "give `ca_file` the PEM certificate of the broker's authority"
        return fail("tls", f"{config.ca_file} cannot be read as certificates: {error}", fix)
    if through_proxy:
        return ok("tls", f"verified against {whom}; the expiry is not seen through a proxy")
    host = url.hostname or ""
    try:
        with (
            socket.create_connection((host, port_of(url)), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            until = str((secure.getpeercert() or {}).get("notAfter", ""))
            version = secure.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        fix = "renew it at the broker, name its authority in `ca_file`, or set this host's clock"
        return fail("tls", f"the certificate is not believed: {error.verify_message}", fix)
    except OSError as error:
        return fail("tls", f"no TLS with {host}: {error}", "is this the broker's https port?")
    return expiry(until, f"{version}, verified against {whom}", time.time())


def trusted(config: Config) -> ssl.SSLContext:
    """As the agent's own client has it; raises OSError (ssl.SSLError is one)."""
    return ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)


def expiry(not_after: str, how: str, now: float) -> Finding:
    """`not_after` as a certificate says it; `now` in seconds since 1970."""
    days = (ssl.cert_time_to_seconds(not_after) - now) / DAY_S
    text = f"{how}; the certificate is good for {days:.0f} days"
    if days < EXPIRES_SOON_DAYS:
        return warn("tls", text, "renew the broker's certificate, or ask its operators to")
    return ok("tls", text)


# -- HTTP -----------------------------------------------------------------------------------------


def ask(config: Config, credential: str | None, clock: Clock) -> Answer:
    """An empty batch of reports; raises httpx.HTTPError."""
    url = urlsplit(config.broker)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    verify = trusted(config) if url.scheme == "https" else True
    local = is_loopback(url.hostname or "")
    body = canonical(encode(ReportBatch(PROTOCOL, ())))
    with httpx.Client(verify=verify, trust_env=not local, timeout=TIMEOUT_S) as client:
        began, sent = clock.monotonic(), clock.wall()
        answer = client.post(config.broker + REPORTS_PATH, content=body, headers=headers)
        taken = clock.monotonic() - began
    value = _object(answer.content[:MAX_ANSWER])
    middle = sent.timestamp() + taken / 2
    return Answer(
        status=answer.status_code,
        code=str(value.get("code", "")),
        why=str(value.get("detail", "")) or answer.reason_phrase,
        protocol=str(value.get("protocol", "")),
        skew_s=skew(answer.headers.get("Date"), middle),
        seconds=taken,
    )


def skew(date: str | None, now: float) -> float | None:
    """Seconds by which `now` (since 1970) is ahead of a Date header, which has whole seconds."""
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    told = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
    return now - (told.timestamp() + 0.5)


def _object(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _http(config: Config, answer: Answer) -> Iterator[Finding]:
    text = f"HTTP {answer.status} in {answer.seconds * 1000:.0f} ms"
    if answer.code == "protocol_mismatch" or answer.status == httpx.codes.UPGRADE_REQUIRED:
        fix = "install the release of the agent that the broker's operators name"
        yield fail("version", f"the broker does not speak {PROTOCOL}: {answer.why}", fix)
    elif answer.protocol and answer.protocol != PROTOCOL:
        fix = "install the release of the agent that the broker's operators name"
        yield fail("version", f"the broker speaks {answer.protocol}, not {PROTOCOL}", fix)
    elif answer.status in (httpx.codes.OK, httpx.codes.UNAUTHORIZED) and (
        answer.protocol or answer.code
    ):
        yield ok("broker", text)
        yield ok("version", f"both sides speak {PROTOCOL}" if answer.protocol else _unheard())
    elif answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
        yield fail("broker", f"{text}: {answer.why}", "tell the broker's operators")
    else:
        why = f"{text}: {answer.why}; is {config.broker} a broker?"
        yield fail("broker", why, "mend `broker` in the configuration; it has no path of its own")


def _unheard() -> str:
    return f"this agent speaks {PROTOCOL}; the broker tells its own once the site has joined"


def _credential(answer: Answer, *, joined: bool) -> Finding:
    if not joined:
        fix = "hanse agent join URL TOKEN, with a token from the broker's operators"
        return fail("credential", "this site has not joined", fix)
    if answer.status == httpx.codes.OK:
        return ok("credential", "the broker knows this site")
    if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        fix = "ask for a new token, then hanse agent join --again URL TOKEN"
        return fail("credential", f"refused: {answer.code}: {answer.why}", fix)
    return warn(
        "credential", "not looked at: the broker gave no plain answer", "mend `broker` first"
    )


def _skew(answer: Answer) -> Finding:
    if answer.skew_s is None:
        return warn(
            "clock", "the broker's answer tells no time", "let proxies pass the Date header"
        )
    side = "ahead of" if answer.skew_s > 0 else "behind"
    text = f"this host's time of day is {abs(answer.skew_s):.1f} s {side} the broker's"
    if abs(answer.skew_s) < SKEW_S:
        return ok("clock", text)
    fix = "set it by NTP: timedatectl set-ntp true"
    if abs(answer.skew_s) < FAR_SKEW_S:
        return warn("clock", f"{text}; fences do not depend on it, times in reports do", fix)
    return fail("clock", f"{text}: certificates and tokens may not be believed", fix)
