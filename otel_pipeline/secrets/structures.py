"""Secrets known by where they stand: in URLs, headers and connection strings.

Python's `re` is safe here: no pattern has nested repetition, and what can be long is bounded.
"""

from __future__ import annotations

import re
from typing import Final

from otel_pipeline.secrets.assignments import ASSIGNMENTS
from otel_pipeline.secrets.rules import Rule
from otel_pipeline.secrets.values import is_filled, is_issued, is_mixed, is_random, is_void

_THEN: Final = r"[\"'`\\\]]{0,10}\s{0,3}(?:=|:|,|%3d|%3a)"
_AUTHORIZED: Final = rf"(?i)authorization{_THEN}"
_COOKIES: Final = rf"(?i)cookies?2?{_THEN}"
"""Names with a separator behind them."""
_USERINFO: Final = r"[!-?A-~][!-?A-~\xc2-\xf4][!-?A-~\x80-\xbf](?:@|%40)[A-Za-z0-9\[$%{_-]"

_SCHEMES: Final = r"bearer|basic|token|key|digest|negotiate|ntlm|apikey|hmac|signature|aws4-hmac-sha256|ssws|splunk|bot"


def _bare_credential(match: re.Match[str]) -> bool:
    """Behind a scheme such as Bearer: no word of a sentence."""
    value = match["secret"].rstrip(".,:")
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    scheme = match[0][:6].lower()
    if scheme.startswith(("bearer", "basic")):
        return len(value) >= 8 and (mixed or len(value) >= 24 or value.endswith("=")) and len(set(value)) > 4
    if scheme.startswith(("token", "key")):
        return is_issued(value)
    return len(value) >= 20 and mixed and len(set(value)) > 7 and "." not in value[-6:]


def _userinfo(match: re.Match[str]) -> bool:
    """Whether what stands before @ in a URL is a secret; a bare user name of an ordinary scheme is none."""
    user = match["secret"]
    if ":" in user or "%3A" in user.upper():
        name, _, password = user.replace("%3A", ":").partition(":")
        return not (is_void(password) or (name in {"user", "username"} and password in {"pass", "password"}))
    if match["scheme"].lower() in {"http", "https"}:
        return user.lower() not in {"git", "www", "user", "username"}
    return len(user) >= 16 and any(c.isdigit() for c in user) and any(c.isalpha() for c in user)


_SURE_PARAMETERS: Final = re.compile(
    r"(?i).*(?:signature|credential|token|secret|password|api[-_]?key|apikey|access[-_]?key|accessid|keyid|hmac"
    r"|jwt|hdnts|"
    r"pair-id|assertion|ticket)|sig|sign|auth|pass|policy|session|sid"
)


_HARMLESS_PARAMETERS: Final = re.compile(
    r"(?i).*(?:(?:cache|sort|page|partition|file|object|s3|idempotency|dedup|public|primary)[-_]?key"
    r"|[a-z0-9_-]+hash)"
)


def _signature(match: re.Match[str]) -> bool:
    """Of the sure parameters the value goes; `key`, `code`, `hash` and others if it looks random."""
    value = match["secret"]
    if not is_filled(value):
        return False
    if _SURE_PARAMETERS.fullmatch(match["name"]):
        return len(value) >= 4 and not (value.isdigit() and len(value) < 6)
    if _HARMLESS_PARAMETERS.fullmatch(match["name"]):
        return False
    digits = sum(c.isdigit() for c in value)
    return (
        len(value) >= 16 and digits >= 2 and digits < len(value) and "." not in value[-6:] and "%2F" not in value[:40]
    )


def _is_credential(match: re.Match[str]) -> bool:
    """What stands behind the scheme, if any, is no placeholder."""
    value = match["secret"]
    if "," in match.string[match.start() : match.start("secret")]:  # of a list
        return is_mixed(value.rsplit(" ", 1)[-1])
    return is_filled(value) and is_filled(value.rsplit(" ", 1)[-1].rstrip("]})"))


_SESSION: Final = re.compile(r"(?i).*(?:sess|sid|auth|token|csrf|jwt|login|secure|user).*")


def _carries(match: re.Match[str]) -> bool:
    """Whether a cookie header holds more than settings such as a language."""
    pairs = [pair.partition("=") for pair in match["secret"].split(";")]
    return any(
        is_mixed(value) or len(value) >= 16 or (bool(_SESSION.fullmatch(name)) and is_filled(value))
        for name, _, value in pairs
        if name.strip().lower() not in {"path", "domain", "expires", "max-age", "samesite"}
    )


_BESIDES: Final = re.compile(
    r"(?i);|\b(?:host|server|data source|dbname|database|user id|uid|accountname|endpoint)\s{0,3}="
)


def _connects(match: re.Match[str]) -> bool:
    """One part of several; no variable of that name, as in a line of code."""
    value = match["secret"].strip("\"'").rstrip("),]")
    return _BESIDES.search(match.string) is not None and is_filled(value) and value.lower() != "password"


def _signed(match: re.Match[str]) -> bool:
    return is_random(match["secret"]) and any(len(part) >= 20 for part in re.split("[=,;]", match["secret"]))


STRUCTURES: Final[tuple[Rule, ...]] = (
    Rule(
        "authorization",
        _AUTHORIZED,
        re.compile(
            r"(?i)authorization[\"'`\\\]]{0,5}\s{0,3}[=:]\s{0,3}[\"']?(?:digest|oauth|hawk|signature"
            r"|aws4-hmac-sha256)\s{1,3}"
            r"(?P<secret>[^\r\n]{8,4096})"
        ),
    ),
    Rule(
        "authorization",
        _AUTHORIZED,
        re.compile(
            r"(?i)authorization[\"'`\\\]]{0,5}\s{0,3}(?:[=:,]|%3a"
            r"|%3d)\s{0,3}(?:(?:b(?=\\{0,3}[\"']))?\\{0,3}[\"'`\[]{0,2})"
            rf"(?:(?:{_SCHEMES})(?:\s{{1,3}}|%20|\+))?(?P<secret>(?!(?:bearer|basic|token|header|required|missing|"
            r"none|null|failed|true|false|yes|no)\b(?!-))(?!\[redacted)[^\s\"'`\\][^\"'`\\\r\n]{2,4095})"
        ),
        _is_credential,
    ),
    Rule(
        "authorization",
        r"(?i)(?:bearer|basic|apikey|ssws|splunk|token|key|bot|negotiate)(?:\s{1,3}|%20"
        r"|\+)[\"']?[A-Za-z0-9+/=._~:-]{8}",
        re.compile(
            r"(?i)(?<![A-Za-z0-9])(?:bearer|basic|apikey|ssws|splunk|token|key|bot|negotiate)(?:\s{1,3}|%20|\+)[\"']?"
            r"(?P<secret>[A-Za-z0-9+/=._~:-]{8,4096})"
        ),
        _bare_credential,
    ),
    Rule(
        "cookie",
        _COOKIES,
        re.compile(
            r"(?i)(?<![A-Za-z])(?:set-?)?cookies?2?[\"'`\\\]]{0,5}\s{0,3}(?:[=:,]"
            r"|%3a)\s{0,3}(?:(?:b(?=\\{0,3}[\"']))?\\{0,3}[\"'`\[{]{0,2})"
            r"(?P<secret>[A-Za-z0-9_.%-]{1,256}=[^\"'`\\\r\n]{1,4096})"
        ),
        _carries,
    ),
    Rule(
        "cookie",
        r"(?i)(?:sessionid|session_id|connect[.]sid|phpsessid|jsessionid|laravel_session|csrftoken|__secure-|__host-)",
        re.compile(
            r"(?i)(?:sessionid|session_id|connect\.sid|PHPSESSID|JSESSIONID|ASP\.NET_SessionId|laravel_session"
            r"|csrftoken|"
            r"__(?:Secure|Host)-[\w.-]{1,60})=(?P<secret>[^\s;\"'&,]{6,4096})"
        ),
    ),
    Rule(
        "url_credentials",
        _USERINFO,
        re.compile(
            r"(?i)(?P<scheme>[a-z][a-z0-9+.-]{1,30}):(?:/|\\/|%2F){2}(?P<secret>(?!\[redacted)[^\s/?#@\"'<>]{0,200}"
            r"(?::|%3A)[^\s/?\"'<>]{1,1024}|[^\s/?#@:\"'<>]{3,1024}|(?::|%3A)[^\s@\"'<>]{1,1024})(?:@"
            r"|%40)(?=[A-Za-z0-9_\[$%{-])"
        ),
        _userinfo,
        sweep="at",
    ),
    Rule(
        "url_credentials",
        _USERINFO,
        re.compile(
            r"(?i)(?:postgres(?:ql)?|mysql|mariadb|mongodb|redis|rediss|valkey|amqps?|mssql|clickhouse|s?ftp"
            r"|smtps?|ldaps?|"
            r"nats|kafka)(?:\+[a-z0-9]+)?://(?P<secret>[^\s:/@\"'<>]{0,200}:[^\s\"'<>]{1,512})@(?="
            r"[A-Za-z0-9_.\[\]-]{1,255}(?::[0-9]{1,5})?(?:[/?\s\"',;)]|$))"
        ),
        sweep="at",
    ),
    Rule(
        "url_signature",
        r"(?i)(?:sig|signature|sign|credential|token|key|code|secret|hmac|hm|policy|auth|jwt|accessid|keyid|hdnts|hash"
        r"|password|sid|"
        r"ticket|pass|session|pair-id|verify|assertion)(?:=|%3d)",
        re.compile(
            r"(?i)(?:[?&]|%26|%3F|\\u0026|&amp;)(?P<name>[a-z0-9_.-]{0,40}?"
            r"(?:sig|signature|sign|credential|token|key|code|secret|hmac|(?<![a-z])hm|policy|auth|jwt|accessid|keyid|hdnts"
            r"|hash|password|"
            r"sid|ticket|pass|session|pair-id|verify|assertion))(?:=|%3D)(?P<secret>(?:(?!%26)[^\s&#\"'<>\\]){3,4096})"
        ),
        _signature,
    ),
    Rule(
        "connection_string",
        r"(?i)(?:accountkey|sharedaccesskey|sharedsecretvalue|password|pwd|apikey)\s{0,3}=",
        re.compile(
            r"(?i)(?:^|[;\s\"'])(?:AccountKey|SharedAccessKey|SharedSecretValue|(?:User )?Password|Pwd"
            r"|ApiKey)\s{0,3}=\s{0,3}"
            r"(?P<secret>\"[^\"\r\n]{1,512}\"|'[^'\r\n]{1,512}'|[^;\"'\s]{1,1024})"
        ),
        _connects,
    ),
    Rule(  # X-Hub-Signature-256: sha256=..., Stripe-Signature: t=...,v1=...
        "authorization",
        r"(?i)(?:signature|hmac)(?:-[a-z0-9-]{1,10})?[\"']{0,2}\s{0,2}[:=]",
        re.compile(
            r"(?i)(?<![?&A-Za-z0-9-])(?:[a-z0-9]{1,20}-){0,4}(?:signature|hmac)(?:-(?:sha)?-?[a-z0-9]{1,6}){0,2}"
            r"[\"']?\s{0,2}[:=]\s{0,3}[\"']?(?P<secret>[A-Za-z0-9+/=,;_.:-]{20,1024})"
        ),
        _signed,
    ),
    Rule(  # A name and a password as Oracle writes them.
        "url_credentials",
        r"(?i)(?:oracle:[a-z0-9]{1,5}:|sqlplus )[^\s/@]{1,32}/",
        re.compile(
            r"(?i)(?:jdbc:oracle:[a-z0-9]{1,5}:|sqlplus\s(?:-[a-z]\s{1,3})?)[^\s/@]{1,64}/(?P<secret>[^\s@]{1,256})@"
        ),
    ),
    *ASSIGNMENTS,
)
