"""Attribute keys whose value goes whatever it is, and those whose value is somebody's id.

A key is judged by its end, without its case and with `-`, `_`, `.` and blanks as one. `OPENAI_API_KEY`, `clientSecret`
and `http.request.header.authorization` are denied; `gen_ai.usage.input_tokens`, `token_type` and `cache.key` are not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import REDACTION_KEYS_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_pipeline.secrets.rules import Kind

_ENDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("authorization", "authorization"),
    ("cookie", "cookies?2?"),
    ("private_key", "private key"),
    ("connection_string", "connection string|dsn"),
    (
        "api_key",
        "(?:api|access|account|auth|secret|signing|encryption|master|subscription|license|shared access|x|app"
        "|service) ?key",
    ),
    (
        "one_time_code",
        "otp|totp|one time (?:code|password|pin)|passcode|(?:verification|security) code|cvv2?|cvc2?|pin",
    ),
    ("card", "(?:card|credit card|pan) ?number|credit ?card"),
    (
        "password",
        "pass ?word|passwd|pass ?phrase|pwd|passwd|userpass|db pass|secret|token|creds|credentials?|jwt|csrf"
        "|xsrf|bearer|"
        "(?:api|auth|app|client|session|webhook|hmac|consumer|shared) secret",
    ),
)
_SPLIT: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MARKS: Final = re.compile(r"[^a-z0-9]+")
_PATTERN: Final = re.compile("|".join(f"(?P<k{i}>(?:.* )?(?:{ends}))" for i, (_, ends) in enumerate(_ENDS)))
_HARMLESS: Final = re.compile(
    r"(?:.* )?(?:next|continuation|page|sync|cancel(?:l?ation)?|eos|bos|pad|stop|start|special|image|last|first"
    r"|class|trigger|unk) token"
)

USER_KEYS: Final = (
    "enduser.id",
    "user.id",
    "user.email",
    "user.name",
    "user.full_name",
    "user_id",
    "userId",
    "customer_id",
    "enduser.email",
)
"""Keys of attributes that say who somebody is, pseudonymised unless configured otherwise."""


def normal(key: str) -> str:
    """Words in small letters with one blank between them."""
    return _MARKS.sub(" ", _SPLIT.sub(" ", key).lower()).strip()


def denial(denied: Iterable[str], kinds: frozenset[Kind]) -> Callable[[str], Kind | None]:
    """The kind as which the value of a key goes, or None; `denied` are keys of one's own."""
    own = frozenset(map(normal, denied))

    @lru_cache(REDACTION_KEYS_KEPT)
    def judge(key: str) -> Kind | None:
        words = normal(key)
        if words in own:
            return "password"
        match = _PATTERN.fullmatch(words)
        if match is None or match.lastgroup is None or _HARMLESS.fullmatch(words):
            return None
        kind = _ENDS[int(match.lastgroup[1:])][0]
        return kind if kind in kinds else None

    return judge
