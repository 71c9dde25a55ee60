"""What never leaves the host in a field or in an error's message: credentials, tokens, e-mail addresses, signed URLs.

Fields are refused when in doubt, messages have the doubtful part replaced. The gateway redacts again, with more rules;
this is the first line, small enough for every message of a worker.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

MESSAGE_MAX: Final = 256
"""Characters of an error's message that are kept."""
SCANNED_MAX: Final = 2048
"""Characters of it that are looked at: bounds the time of the patterns below."""
REMOVED: Final = "[redacted]"

_NAMES: Final = (
    r"(?:[\w-]{0,24}(?:api[_-]?key|access[_-]?key|secret|token(?!s|i)|passwd|password|pwd|credential|signature|private[_-]?key)"
    r"[\w-]{0,24}|authorization|x-amz-[\w-]{1,24}|cookie|dsn)"
)
_PREFIXED: Final = (
    r"(?<![A-Za-z0-9])(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}|(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_|glpat-|hf_|r8_|rpa_|"
    r"xox[abprs]-|xai-|fal_|sntry[su]_|AIza|ya29\.|AKIA|ASIA|SG\.|shpat_|npm_|pypi-|dop_v1_)[A-Za-z0-9_.-]{12,}"
)
_JWT: Final = r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
_PEM: Final = r"-----BEGIN [A-Z ]{3,40}-----[\s\S]*"
_EMAIL: Final = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"

_TOKEN: Final = re.compile(f"{_PREFIXED}|{_JWT}")
_TOKEN_MIN: Final = 15
"""Characters of the shortest text that it matches."""
_ASSIGNED: Final = re.compile(
    f"{_PEM}|(?i:bearer|basic)\\s+[A-Za-z0-9+/=._~-]{{8,}}|(?i:{_NAMES})\\s*[=:]\\s*\\S{{4,}}|"
    r"://[^\s/@]*:[^\s/@]*@|data:[\w/+.-]+;base64,"
)
"""Slow, by its names: 80 us for a UUID."""
_ASSIGNS: Final = re.compile(r"[=:\s]")
"""One of these is in all that it matches."""
_EMAIL_ONLY: Final = re.compile(_EMAIL)
_TOKENISH: Final = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_UUID_OR_HEX: Final = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")
_REPLACED: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(_PEM), REMOVED),
    (re.compile(r"data:[\w/+.-]{1,80};base64,[A-Za-z0-9+/=_-]*"), REMOVED),
    (re.compile(r"([a-zA-Z][\w+.-]{1,20}://)[^\s/@'\"]{1,300}@"), rf"\1{REMOVED}@"),
    (re.compile(r"([a-zA-Z][\w+.-]{1,20}://[^\s?#'\"<>]{1,500})[?#][^\s'\"<>)\]]*"), r"\1?" + REMOVED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {REMOVED}"),
    (
        re.compile(rf"(?i)\b({_NAMES}['\"]?\s*[=:]\s*)(?!\[redacted\]|bearer\b|basic\b)['\"]?[^\s,;'\"&)}}\]]{{3,}}"),
        rf"\1{REMOVED}",
    ),
    (re.compile(f"{_PREFIXED}|{_JWT}"), REMOVED),
    (re.compile(_EMAIL), REMOVED),
)


def is_email(text: str) -> bool:
    return "@" in text and _EMAIL_ONLY.fullmatch(text) is not None


def is_secret(text: str) -> bool:
    """Whether it has the look of a credential. Ids in hex, UUIDs and the like have not."""
    if _ASSIGNS.search(text) is not None and _ASSIGNED.search(text) is not None:
        return True
    return len(text) >= _TOKEN_MIN and _UUID_OR_HEX.fullmatch(text) is None and _TOKEN.search(text) is not None


def is_random(text: str) -> bool:
    """Whether it has the look of a token: long, of capitals, small letters and digits, and not a UUID or in hex."""
    match = _TOKENISH.fullmatch(text)
    if match is None or _UUID_OR_HEX.fullmatch(text):
        return False
    return any(c.isupper() for c in text) and any(c.islower() for c in text) and any(c.isdigit() for c in text)


def has_query_or_credentials(text: str) -> bool:
    """Whether it is a URL that carries more than a place."""
    return "://" in text and ("?" in text or "@" in text or "#" in text)


def scrub(text: str) -> str:
    """An error's message with what is secret replaced, cut to its maximum, on one line."""
    text = text[:SCANNED_MAX]
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    words = [
        REMOVED if len(word) >= 40 and is_random(word.strip("'\"(),.:;[]{}")) else word for word in text.split(" ")
    ]
    return " ".join(words)[:MESSAGE_MAX]


def error_text(error: BaseException) -> str:
    """The message of an exception, as `scrub` leaves it; empty if the exception cannot tell it."""
    try:
        return scrub(str(error))
    except Exception:  # noqa: BLE001  it is the program's code that runs here
        return ""


def pseudonym(text: str, key: str = "") -> str:
    """16 hexadecimal digits that stand for a user: HMAC-SHA-256 with a key, a plain hash without."""
    raw = text.encode("utf-8", "surrogatepass")
    if key:
        return hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()[:16]
    return hashlib.sha256(raw).hexdigest()[:16]
