"""Secrets known by where they stand: in URLs, headers, connection strings and assignments. Python's `re` is safe here:
no pattern has nested repetition, and what can be long is bounded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from otel_pipeline.limits import REDACTION_KEYS_KEPT
from otel_pipeline.secrets.rules import Rule

_Q: Final = r"\\{0,3}[\"'`]"
"""A quote, or one that is escaped in JSON within a string."""
_SEPARATOR: Final = rf"(?:{_Q})?\]?\s{{0,3}}(?:=>|:=|[=:]|%3[DA])\s{{0,3}}"
_QUOTED: Final = r"\\{0,3}\"(?P<a>[^\"\\]{1,4096})|\\{0,3}'(?P<b>[^'\\]{1,4096})"

_STRONG: Final = (
    r"pass[-_. ]?word|passwd|pass[-_. ]?phrase|pwd|mysql_pwd|pgpassword|redis[-_]?pass|db[-_]?pass|smtp[-_]?pass"
    r"|userpass|"
    r"client[-_. ]?secret|secret[-_. ]?(?:access[-_. ]?)?key|app[-_. ]?secret|api[-_. ]?secret|webhook[-_. ]?secret|"
    r"shared[-_. ]?secret|(?:session|signing|jwt|hmac|consumer)[-_. ]?secret|private[-_. ]?key|api[-_. ]?key|"
    r"api[-_. ]?token|access[-_. ]?key(?![-_. ]?id)|account[-_. ]?key|auth[-_. ]?key|shared[-_. ]?access[-_. ]?key|"
    r"signing[-_. ]?key|encryption[-_. ]?key|master[-_. ]?key|subscription[-_. ]?key|license[-_. ]?key|"
    r"access[-_. ]?token|refresh[-_. ]?token|auth[-_. ]?token|id[-_. ]?token|bearer[-_. ]?token|session[-_. ]?token|"
    r"security[-_. ]?token|secret[-_. ]?token|bot[-_. ]?token|deploy[-_. ]?token|csrf[-_. ]?token|xsrf[-_. ]?token|"
    r"service[-_. ]?token|app[-_. ]?token|user[-_. ]?token|device[-_. ]?token|hf[-_. ]?token|github[-_. ]?token|"
    r"x[-_]key|xi[-_]api[-_]key|x[-_](?:api|auth|amz|goog|vault|shopify|gitlab|figma)[-_a-z]{0,20}(?:token|key"
    r"|signature)|"
    r"(?:auth|db|database|user|login|admin|root)[-_. ]?creds|credentials?|sharedaccesssignature|csrfmiddlewaretoken"
)
"""Names that nothing harmless has: their value goes unless it is plainly none."""
_STRONG_NAME: Final = re.compile(rf"(?i)(?:{_STRONG})$")
NAME_CHARS_MAX: Final = 24
"""The longest of them."""
_WEAK: Final = r"secret|token|auth|session(?:[-_]?id)?|sid|signature|sig|jwt|nonce|hash_?key|salt"
"""Names that harmless values have, too: the value goes if it looks random."""
_NAME_END: Final = r"(?![A-Za-z0-9])"
_VALUE: Final = rf"(?:{_QUOTED}|(?P<c>[^\s\"'`,;&<>(){{}}\[\]|]{{1,4096}}))"
_EMPTY: Final = re.compile(
    r"(?:null|none|nil|true|false|yes|no|undefined|required|missing|invalid|expired|wrong|incorrect|unset|empty|set|"
    r"not|is|was|must|string|str|bytes|int|optional|object|unknown|changed|reset|revoked|rejected|ok|failed|error|"
    r"unauthorized|forbidden|provided|given|the|a|an|for|and|or|hidden|masked|filtered|removed|"
    r"[*x.•-]+|\[?(?:redacted|filtered|masked|removed|cut)[^\n]*|\$\{?[^\n]*|<[^>]*>|%[sdr]|\{[^\n]*|\.\.\.)",
    re.IGNORECASE,
)


def _value(match: re.Match[str]) -> str:
    return match["a"] or match["b"] or match["c"] or ""


def _filled(match: re.Match[str]) -> bool:
    value = _value(match).rstrip(".,:)!?")
    return len(value) >= 3 and _EMPTY.fullmatch(value) is None


def _named(match: re.Match[str]) -> bool:
    """The end of a name is what the pattern looks for, since that is fast; here the whole name is judged."""
    before = match.string[max(match.start() - NAME_CHARS_MAX, 0) : match.end("name")]
    return _is_strong(before) and _filled(match)


@lru_cache(REDACTION_KEYS_KEPT)
def _is_strong(before: str) -> bool:
    return _STRONG_NAME.search(before) is not None


def _mixed(match: re.Match[str]) -> bool:
    value = _value(match).rstrip(".,:)!?")
    return len(value) >= 6 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _random(match: re.Match[str]) -> bool:
    """Of the looks of a token: long, and letters mixed with digits; no word, number, date, path or version."""
    value = _value(match).rstrip(".,:)!?")
    if len(value) < 10 or _EMPTY.fullmatch(value) or "/" in value[:2] or "://" in value:
        return False
    letters = sum(c.isalpha() for c in value)
    digits = sum(c.isdigit() for c in value)
    return digits >= 2 and letters >= 2 and len(set(value)) >= 8


_THEN: Final = r"[\"'`\\\]]{0,5}\s{0,3}(?:=|:|,|%3d|%3a)"
_NAMED: Final = (
    r"(?i)(?:pass[-_. ]?(?:word|phrase)|passwd|pwd|pass|secret|token|creds|credentials?|signature|middlewaretoken|"
    rf"[a-z][-_. ]?key){_THEN}"
)
_HINTED: Final = rf"(?i)(?:secret|token|auth|session[-_ ]?(?:id)?|sid|signature|sig|jwt|nonce|hash_?key|salt){_THEN}"
_AUTHORIZED: Final = rf"(?i)authorization{_THEN}"
_COOKIES: Final = rf"(?i)cookies?2?{_THEN}"
_PASS: Final = rf"(?i)pass{_THEN}"
_ENVIRONMENT: Final = rf"(?i)_KEY{_THEN}"
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
    return len(value) >= 20 and mixed and len(set(value)) > 7 and "." not in value[-6:]


def _userinfo(match: re.Match[str]) -> bool:
    """Whether what stands before @ in a URL is a secret; a bare user name of an ordinary scheme is none."""
    user = match["secret"]
    if ":" in user or "%3A" in user.upper():
        return True
    if match["scheme"].lower() in {"http", "https"}:
        return user.lower() not in {"git", "www", "user", "username"}
    return len(user) >= 16 and any(c.isdigit() for c in user) and any(c.isalpha() for c in user)


_SURE_PARAMETERS: Final = re.compile(
    r"(?i).*(?:signature|credential|token|secret|password|api[-_]?key|apikey|access[-_]?key|accessid|keyid|hmac"
    r"|jwt|hdnts|"
    r"pair-id|assertion|ticket)|sig|sign|auth|pass|policy|session|sid"
)


def _signature(match: re.Match[str]) -> bool:
    """Of the sure parameters the value goes; `key`, `code`, `hash` and others if it looks random."""
    value = match["secret"]
    if _EMPTY.fullmatch(value):
        return False
    if _SURE_PARAMETERS.fullmatch(match["name"]):
        return len(value) >= 4 and not (value.isdigit() and len(value) < 6)
    digits = sum(c.isdigit() for c in value)
    return (
        len(value) >= 16 and digits >= 2 and digits < len(value) and "." not in value[-6:] and "%2F" not in value[:40]
    )


def _told(match: re.Match[str]) -> bool:
    """`the password is X`: X is quoted or no word."""
    value = match["secret"].rstrip(".,:)!?")
    if _EMPTY.fullmatch(value) or "=" in value[:2]:
        return False
    marked = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return marked or (bool(match["q"]) and " is" in match[0].lower())


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
        "password",
        _PASS,
        re.compile(rf"(?i)(?<![A-Za-z])pass{_SEPARATOR}{_VALUE}"),
        _mixed,
    ),
    Rule(
        "password",
        _ENVIRONMENT,
        re.compile(
            r"(?<![A-Za-z])(?![A-Z_]*(?:CACHE|PRIMARY|PUBLIC|SORT|PARTITION|IDEMPOTENCY|FOREIGN"
            r"|HOST)_)[A-Z][A-Z0-9_]{1,40}_KEY"
            rf"{_SEPARATOR}{_VALUE}"
        ),
        _mixed,
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
            r"(?::|%3A)[^\s/@\"'<>]{1,1024}|[^\s/?#@:\"'<>]{3,1024}|(?::|%3A)[^\s@\"'<>]{1,1024})(?:@"
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
        r"(?i)(?:[?&]|%26|%3f|\\u0026|amp;)[a-z0-9_.-]*"
        r"(?:sig|signature|sign|credential|token|key|code|secret|hmac|policy|auth|jwt|accessid|keyid|hdnts|hash"
        r"|password|sid|"
        r"ticket|pass|session|pair-id|verify|assertion)(?:=|%3d)",
        re.compile(
            r"(?i)(?:[?&]|%26|%3F|\\u0026|&amp;)(?P<name>[a-z0-9_.-]{0,40}?"
            r"(?:sig|signature|sign|credential|token|key|code|secret|hmac|policy|auth|jwt|accessid|keyid|hdnts"
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
        lambda match: _EMPTY.fullmatch(match["secret"].strip("\"'")) is None,
    ),
    Rule(
        "password",
        _NAMED,
        re.compile(
            r"(?i)(?P<name>word|phrase|passwd|pwd|pass|secret|key|token|creds|credentials?|signature)"
            rf"{_NAME_END}{_SEPARATOR}{_VALUE}"
        ),
        _named,
    ),
    Rule(
        "password",
        _HINTED,
        re.compile(rf"(?i)(?<![A-Za-z])(?:{_WEAK}){_NAME_END}{_SEPARATOR}{_VALUE}"),
        _random,
    ),
    Rule(
        "password",
        r"(?i)(?:password|passwd|passphrase|secret|api[-_ ]?key|token)\s{1,3}(?:is|was)?:?\s{0,3}[\"'`]?[^\s\"'`,;]{6}",
        re.compile(
            r"(?i)(?<![A-Za-z])(?:password|passwd|passphrase|secret|api[-_ ]?key|token)\s{1,3}(?:is|was)?:?\s{0,3}"
            r"(?P<q>[\"'`]?)(?P<secret>[^\s\"'`,;]{6,512})"
        ),
        _told,
    ),
    Rule(
        "password",
        r"--(?:[a-z]{1,20}-)?(?:password|pass|passwd|token|api-key|apikey|secret|auth-token|access-key"
        r"|secret-key)[=\s]",
        re.compile(
            r"(?<![\w-])--(?:[a-z]{1,20}-)?(?:password|pass|passwd|token|api-key|apikey|secret|auth-token"
            r"|access-key|secret-key)"
            r"(?:=|\s{1,3})[\"']?(?P<secret>(?!-)[^\s\"']{3,1024})"
        ),
        lambda match: _EMPTY.fullmatch(match["secret"]) is None,
    ),
    Rule(
        "url_credentials",
        r"(?:-u|--user|--proxy-user)[\s=]{1,3}[\"']?[^\s:\"']{1,200}:",
        re.compile(
            r"(?<![\w-])(?:-u|--user|--proxy-user)(?:=|\s{1,3})[\"']?(?P<secret>[^\s:\"']{1,200}:[^\s\"']{3,512})"
        ),
    ),
)
