"""How a value is written behind its name, and whether it is a secret at all: no placeholder, no code, no word.

Every judgement here is of one value; what its name says is for others (`assignments.py`).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

QUOTE: Final = r"(?:\\{0,15}[\"'`]|%22|%27|&quot;|&#0?3[49];|\\u002[27])"
"""A quote, also one that is escaped: in JSON within strings, in a URL, in HTML."""
EQUALS: Final = r"(?:=>|->|\|\|=|[:?!+.]{0,3}={1,3}|:{1,3}|\uff1a|%3[DA])"
"""What stands between a name and its value."""
_GAP: Final = rf"(?:\s{{0,3}}(?={QUOTE})|[^\S\n]{{0,3}}[|>][+-]?[^\S\n]{{0,3}}\n\s{{1,20}}|[^\S\n]{{0,3}})"
"""Before a value; a new line only where a quote stands on the next, or as a block of YAML."""
_TYPED: Final = r"\s{0,2}:?\s{1,2}(?:string|str|text|SecretStr)\s{0,2}=\s{0,3}(?=[\"'`])"
_BESIDE: Final = rf"{QUOTE}?,?\s{{0,20}}{QUOTE}?[Vv]alue{QUOTE}?\s{{0,3}}[=:]\s{{0,3}}"
_LISTED: Final = rf"{QUOTE}\s{{0,3}},\s{{0,3}}(?={QUOTE})"
_CALLED: Final = r"\(\s{0,3}(?=[\"'])"
SEPARATOR: Final = (
    rf"(?:{_BESIDE}|{_LISTED}|{_CALLED}|{_TYPED}|{QUOTE}?(?:\[\w{{0,16}})?\]?\s{{0,3}}{EQUALS}{_GAP})"
    r"(?:\[\s{0,3}(?=[\"'\\]))?(?:[bBrRuUfFN@]{1,2}(?=\\{0,15}[\"']))?"
)
"""Between a name and its value: a sign, a call, the next item of a list, or the word value."""

_PLAIN: Final = (
    r"(?:[^\s\"'`,;&<>(){}\[\]|\\%]{1,32}|%(?!2[267])|\\(?![nr\"'\\])"
    r"|[,;](?![\s\"'\[{(]|$|[\w.-]{1,40}[\"']?\s?[=:])"
    r"|&(?![\w.%-]{1,40}=|quot;|amp;|\#|\s|$)|[(\[{|](?=\S)|[)\]}](?=[^\s\"'`,;.)\]}<&:]))"
)
_CODED: Final = r"%22|%27|&quot;|&#0?3[49];"
VALUE: Final = (
    rf"(?:(?:\\{{1,15}}[\"']|{_CODED})(?P<a>(?:(?!{_CODED})[^\"'\\]){{1,4096}})"
    rf"|(?P<mark>[\"'`])(?P<b>(?:(?!(?P=mark))[^\\]|\\.){{1,4096}})|(?P<c>{_PLAIN}{{1,128}}))"
)
"""In quotes, or up to what ends it."""

_WORD_LIST: Final = (
    "null none nil true false yes no undefined required missing invalid expired wrong incorrect unset empty "
    "set not is was must string str bytes int optional object unknown changed reset revoked rejected ok failed "
    "error unauthorized forbidden provided given the a an for and or hidden masked filtered removed default "
    "disabled enabled auto any basic bearer from to in of on field fields column header value values type "
    "types self cls void this bool float dict list tuple sequence mapping callable username user token options "
    "hiddentext secretstr credentials"
)
_WORDS: Final = frozenset(_WORD_LIST.split())
"""What stands behind a name in messages, code and schemas."""
_MARK_LIST: Final = "your my here placeholder example insert replace enter dummy sample todo"
_SAMPLE_MARKS: Final = frozenset(_MARK_LIST.split())
_SAMPLE_LIST: Final = (
    "api key token secret password passwd access auth me with this the actual real value openai hf aws azure "
    "goes id client user account provider stripe github fal replicate runpod service app new change it xxx "
    "xxxx put a an add huggingface anthropic google gemini bfl bearer"
)
_SAMPLE_WORDS: Final = _SAMPLE_MARKS | frozenset(_SAMPLE_LIST.split())
_VOID: Final = re.compile(
    r"[*x.\u2022?_#-]+|\(?(?i:n/a|none|hidden|empty|(?:un)?set|redacted(?:[:@]redacted)?)\)?|[\w-]{0,12}[*\u2022]{3,}[\w-]{0,8}|[\w-]{0,12}x{6,}|[\w-]{0,8}\.{3}[\w-]{0,8}"
    r"|\[(?i:redacted|filtered|masked|removed|cut|hidden|secure|secret)\b[^\n]*|(?i:redacted|filtered|masked|removed|hidden)|!(?:vault|Ref|Sub|GetAtt|env|ENV|secret)"
    r"|\$\{[^\n]*|\$\([^\n]*|\$(?:[A-Z_][A-Z0-9_]*|[a-z_]+|[0-9]{1,2})|<[^>]*>?|%[sdr]|%\(\w+\)s|%[A-Z_]{2,}%"
    r"|\{\{?[\w .:!-]*\}{0,2}|@p?[0-9]{1,3}|:[a-z_]+|__[A-Z_]+__"
)
"""Masks, templates and the parameters of statements."""
_CODE: Final = re.compile(
    r"(?:os|process|env|ENV|config|settings|self|cls|cfg|args|opts|options|request|req|ctx|secrets|vars?|local|data|module|"
    r"params|kwargs|environ|import|Deno|System|Rails|app|this|conf|props|state|event|input|ssm|vault|creds?|credentials)"
    r"(?:\.[A-Za-z_]\w*|\[)[^\n]*|(?:[a-z_]+\.){2,}[A-Za-z_]+|[A-Za-z_.]{2,}[(\[{][^\n]*|(?:await|new|lambda|return)\b[^\n]*"
)
"""Where a secret is taken from, in a line of code."""
_NAME: Final = re.compile(
    r"(?:[A-Za-z]+[_.-]){0,6}(?:api_?key|access_?key|secret_?key|[A-Za-z]+_?token|[A-Z_]*(?:PASSWORD|SECRET|TOKEN|KEY)|"
    r"[a-z]+_(?:password|secret|key|creds|credentials))"
)
_PATH: Final = re.compile(
    r"(?:~|\.{0,2})(?:/[a-z0-9_.@-]{1,24}){2,}/?|[\w./-]{1,200}\.(?:pem|key|crt|cer|json|ya?ml|txt)"
)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]{1,20}://[^\s@]*")
_MACHINE: Final = re.compile(
    r"0x[0-9a-fA-F]{1,16}|[\w.$]{2,200}@[0-9a-f]{4,8}|[\^~<>=v]{0,2}[0-9]{1,4}(?:\.[0-9]{1,8}){1,3}[\w.+-]*"
)
"""An address, an object, a version."""
_TOLD_CHARS: Final = 256
"""No placeholder is longer, and so much of a token tells what it is."""
_EDGES: Final = ".,:)!?"


def written(match: re.Match[str]) -> str:
    """The value that `VALUE` matched."""
    return match["a"] or match["b"] or match["c"] or ""


def is_filled(value: str) -> bool:
    """Whether something stands there that could be secret."""
    value = value.strip().rstrip(_EDGES)
    if len(value) > _TOLD_CHARS:
        return True
    if len(value) < 3 or value.lower() in _WORDS or _VOID.fullmatch(value) or is_sample(value):
        return False
    return not (_CODE.fullmatch(value) or _NAME.fullmatch(value) or _PATH.fullmatch(value) or _URL.fullmatch(value))


def is_void(value: str) -> bool:
    """Whether a mask, a template or a sample stands in the place of a secret."""
    return _VOID.fullmatch(value) is not None or is_sample(value)


def is_sample(value: str) -> bool:
    """`your-api-key-here` and the like."""
    words = [word for word in re.split(r"[^a-z]+", value.lower()) if word]
    return bool(words) and set(words) <= _SAMPLE_WORDS and not _SAMPLE_MARKS.isdisjoint(words)


def is_mixed(value: str) -> bool:
    """Letters and digits, six or more: no word, and no number."""
    value = value.rstrip(_EDGES)
    return len(value) >= 6 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value) and is_filled(value)


def is_random(value: str) -> bool:
    """Of the looks of a token: long, letters mixed with digits or large with small ones; no word, date or version."""
    value = value.rstrip(_EDGES)[:_TOLD_CHARS]
    if len(value) < 10 or len(set(value)) < 8 or not is_filled(value) or _MACHINE.fullmatch(value):
        return False
    letters = sum(c.isalpha() for c in value)
    digits = sum(c.isdigit() for c in value)
    signs = sum(c in "!@#$^&*{}[]<>?~|" for c in value)
    return letters >= 2 and (digits >= 2 or signs >= 3 or (len(value) >= 20 and _turns(value) >= 5))


def is_issued(value: str) -> bool:
    """Like a key that a machine made: small and large letters, and digits, and nothing of a path or a name."""
    value = value.rstrip(_EDGES)
    forms = (str.islower, str.isupper, str.isdigit)
    if re.fullmatch(r"[0-9a-f-]{32,}", value):
        return is_random(value)
    return (
        is_random(value)
        and all(any(map(form, value)) for form in forms)
        and re.fullmatch(r"[\w+=-]+|(?=.*[+=])[\w+/=-]{20,}", value) is not None
    )


def _turns(value: str) -> int:
    """How often large and small letters follow each other."""
    return sum(left.islower() and right.isupper() for left, right in pairwise(value))
