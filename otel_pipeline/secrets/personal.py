"""What tells who somebody is or lets them in: e-mail addresses, card numbers, phone numbers, one-time codes."""

from __future__ import annotations

import re
from typing import Final

from otel_pipeline.secrets.rules import Rule

_FILE_ENDINGS: Final = frozenset(
    [
        *(
            "png",
            "jpg",
            "jpeg",
            "gif",
            "webp",
            "svg",
            "bmp",
            "tiff",
            "avif",
            "heic",
            "mp4",
            "webm",
            "mov",
            "mkv",
            "avi",
        ),
        *(
            "wav",
            "mp3",
            "flac",
            "ogg",
            "json",
            "yaml",
            "yml",
            "toml",
            "txt",
            "md",
            "csv",
            "py",
            "js",
            "ts",
            "css",
            "html",
        ),
        *(
            "safetensors",
            "ckpt",
            "pt",
            "pth",
            "bin",
            "gguf",
            "onnx",
            "zip",
            "gz",
            "tar",
            "whl",
            "so",
            "dll",
            "exe",
            "log",
        ),
        *("conf", "local", "internal", "localdomain", "svc", "cluster", "lan"),
    ]
)
"""What stands behind the last dot of a file or a host within, not of a mail domain."""

_IN_URL: Final = re.compile(r"://[^\s/@]*$")
"""What stands before the @ is the name in a URL, with or without a password: another rule's."""


def _is_address(match: re.Match[str]) -> bool:
    """No name of a file such as icon@2x.png, and no user of a shell such as git@host:path."""
    ending = match["tld"].lower()
    behind = match.string[match.end() : match.end() + 2]
    if ending in _FILE_ENDINGS or _IN_URL.search(match.string[max(match.start() - 256, 0) : match.end("user")]):
        return False
    before: str = match.string[max(match.start() - 3, 0) : match.start()]
    return not (match["user"].lower() == "git" and (behind[:1] in {":", "/"} or before.endswith("//")))


def luhn(digits: str) -> bool:
    """The check digit of payment cards."""
    total = 0
    for index, character in enumerate(reversed(digits)):
        value = int(character) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_NETWORKS: Final = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]"
    r"|720)[0-9]{12}|"
    r"3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|3[689][0-9]{14}|35(?:2[89]|[3-8][0-9])[0-9]{12}|"
    r"6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12}|62[0-9]{14,17}|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{8,15}|"
    r"220[0-4][0-9]{12}|9792[0-9]{12}|81[0-9]{14}|(?:60|65|81|82|508)[0-9]{13,14}"
)
_SEEDS: Final = re.compile(r"(?i)(?:seed|timestamp|_ns|nanos?|offset|bytes|size|epoch)[\"']?\s{0,2}[=: ]\s{0,2}[\"']?$")


def _is_card(match: re.Match[str]) -> bool:
    """The ranges of the networks and the check digit. A number called a seed is one."""
    digits = re.sub("[^0-9]", "", match[0])
    if len(set(digits)) < 2 or _NETWORKS.fullmatch(digits) is None or not luhn(digits):
        return False
    before = match.string[max(match.start() - 20, 0) : match.start()]
    return _SEEDS.search(before) is None


def is_mere_number(data: bytes, place: int) -> bool:
    """Whether a place in raw bytes is in a long run of digits that holds no card number, such as an id in hex."""
    if not data[max(place - 12, 0) : place + 1].isdigit() or place < 12:
        return False
    first, last = place - 12, place + 1
    while first > place - 32 and data[first - 1 : first].isdigit():
        first -= 1
    while last < place + 32 and data[last : last + 1].isdigit():
        last += 1
    run: str = data[first:last].decode()
    return not any(
        _NETWORKS.fullmatch(run, start, start + size) is not None and luhn(run[start : start + size])
        for start in range(len(run) - 12)
        for size in range(13, min(19, len(run) - start) + 1)
    )


def _is_phone(match: re.Match[str]) -> bool:
    text: str = match["secret"]
    return 7 <= sum(c.isdigit() for c in text) <= 15


def _is_international(match: re.Match[str]) -> bool:
    """No decimal with a sign; with 00 in place of + there must be more digits, as numbers of files begin so."""
    text = match["secret"]
    digits = sum(c.isdigit() for c in text)
    return (11 if text.startswith("00") else 8) <= digits <= 15 and re.fullmatch(r"\+[0-9]+\.[0-9]+", text) is None


def _is_national(match: re.Match[str]) -> bool:
    text = match["secret"]
    digits = sum(c.isdigit() for c in text)
    return 9 <= digits <= 12 and len(set(text)) > 4


_S: Final = r"[ .\u00a0\u2011\u2013-]"
_NOT_AFTER: Final = r"(?<![A-Za-z0-9])(?<![0-9][.,:/-])(?<![A-Za-z][-_.])(?<!#)"
_NOT_BEFORE: Final = r"(?![A-Za-z0-9_])(?![.,:/-][0-9])(?!-[A-Za-z])"
_PHONE_WORD: Final = r"phone|mobile?|whatsapp|msisdn|tel[:.]|call me(?: at| on)?|fax|sms|cell:|telefon|handy:"

_CODE_WORD: Final = (
    r"otp|totp|2fa|mfa|pin|passcode|one[-_ ]?time[-_ ]?(?:pass)?(?:code|password|pin|token)?|"
    r"(?:verification|security|confirmation|login|sign[- ]?in|authentication|auth|access|recovery|backup|reset|sms|"
    r"authenticator|two[- ]factor|2fa|mfa|tan|activation|verify)[-_ ]{0,2}(?:code|pin|number|token)"
    r"|verify[-_ ]?code|cvv2?|cvc2?|tan"
)
_CODE: Final = r"(?P<secret>[0-9]{4,8}|[0-9]{3}[- ][0-9]{3}|[A-Z]{1,2}-[0-9]{5,8}|[0-9]{4}[- ][0-9]{4})"


def _is_code(match: re.Match[str]) -> bool:
    return (
        not re.fullmatch(r"(?:19|20)[0-9]{2}", match["secret"])
        or "otp" in match[0].lower()
        or "pin" in match[0].lower()
    )


_OTP: Final = (
    r"(?i)(?:otp|2fa|mfa|pin|code|cvv2?|cvc2?|tan|time|token|number|password)[\"'`]?(?:\s{1,2}(?:is|was|code"
    r"|number|of|to|for[^0-9\n:]+is))?"
    r"\s{0,2}[:=#>-]{0,2}\s{0,2}[\"'`]?(?:[a-z]{1,2}-)?[0-9]{3}"
)
_CARD: Final = r"[2-6][0-9]{12}|[0-9][ -](?:[0-9]{4}|[0-9]{6})[ -][0-9]"
_AT: Final = r"(?:@|%40)[A-Za-z0-9\x80-\xff][A-Za-z0-9_\x80-\xff-]*[.][A-Za-z0-9_\x80-\xff-]{2}"

PERSONAL: Final[tuple[Rule, ...]] = (
    Rule(
        "one_time_code",
        _OTP,
        re.compile(
            r"(?i)(?<![A-Za-z])(?:cvv2?|cvc2?|csc)[\"'`]?\s{0,2}[:=]?\s{0,2}[\"'`]?(?P<secret>[0-9]{3,4})(?!"
            r"[0-9A-Za-z])"
        ),
    ),
    Rule(
        "email",
        _AT,
        re.compile(
            r"(?<![\w.+%])(?P<user>[\w!#$&*+~-]?[\w.!#$&'*+^~-]{0,63}|\"[^\"\n]{1,62}\")(?:@|%40)"
            r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?P<tld>[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-]*@)"
        ),
        lambda match: bool(match["user"]) and _is_address(match),
        sweep="at",
    ),
    Rule(
        "email",
        _AT,
        re.compile(
            r"(?P<user>[A-Za-z0-9._+-]{1,64})(?:@|%40)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
            r"(?P<tld>[A-Za-z]{2,24})"
        ),
        _is_address,
        sweep="at",
    ),
    Rule(
        "card",
        _CARD,
        re.compile(
            r"(?<![A-Za-z0-9])(?<![0-9][.-])(?:[2-6][0-9]{3}(?P<x>[ -]?)[0-9]{4}(?P=x)[0-9]{4}(?P=x)[0-9]{1,7}|"
            r"[2-6][0-9]{3}(?: [0-9]{4}){3} [0-9]{3})(?![A-Za-z0-9])(?![.-][0-9])"
        ),
        _is_card,
        sweep="digits",
    ),
    Rule(
        "card",
        _CARD,
        re.compile(
            r"(?<![A-Za-z0-9])(?<![0-9][.-])3[0-9]{3}(?P<y>[ -]?)[0-9]{6}(?P=y)[0-9]{4,5}(?![A-Za-z0-9])(?![.-][0-9])"
        ),
        _is_card,
        sweep="digits",
    ),
    Rule(
        "phone",
        r"(?:\+|%2[bB]|00)[ (]{0,2}[1-9][0-9 ()./-]{0,4}[0-9 ()./\xc2\xa0-]{5}",
        re.compile(
            rf"(?<![A-Za-z0-9+])(?<![0-9][.,:/-])(?P<secret>(?:\+|%2[Bb]"
            rf"|(?<![.,-])00(?=[1-9][0-9 ]{{0,3}}[ (/-]))\s?\(?[1-9][0-9]{{0,3}}\)?"
            rf"(?:(?:{_S}|/){{0,2}}\(?[0-9]{{1,6}}\)?){{2,7}}){_NOT_BEFORE}"
        ),
        _is_international,
        sweep="digits",
    ),
    Rule(
        "phone",
        r"[ .)/-][0-9]{3}[ .-][0-9]{4}",
        re.compile(
            rf"{_NOT_AFTER}(?P<secret>(?:\+?1[ .-])?(?:\([0-9]{{3}}\)[ .-]?|[1-9][0-9]{{2}}(?P<s>[ .-]"
            rf"|/ ?))[0-9]{{3}}[ .-][0-9]{{4}}"
            r"(?:\s?(?:x|ext\.?)\s?[0-9]{1,5})?)(?![A-Za-z0-9_])(?![.,:/-][0-9])"
        ),
        _is_phone,
        sweep="digits",
    ),
    Rule(
        "phone",
        r"0[0-9]{1,4}(?:\) ?| ?[ ./-] ?)[0-9]{2}",
        re.compile(
            rf"{_NOT_AFTER}(?P<secret>\(?0[1-9][0-9]{{1,3}}\)?(?: ?[/-] ?"
            rf"| )[1-9][0-9]{{2,4}}(?:[ -]?[0-9]{{2,5}}){{1,3}}|"
            rf"0[1-9](?:(?P<t>[ .-])[0-9]{{2}})(?:(?P=t)[0-9]{{2}}){{3}}"
            rf"|0[1-9][0-9](?: [0-9]{{3,4}}){{2}}){_NOT_BEFORE}"
        ),
        _is_national,
        sweep="digits",
    ),
    Rule(
        "phone",
        rf"(?i)(?:{_PHONE_WORD})[a-z_. -]{{0,8}}[\"'`]?\s{{0,2}}[#:=]?\s{{0,2}}[\"'`]?\+?\(?[0-9]",
        re.compile(
            rf"(?i)(?<![A-Za-z])(?:{_PHONE_WORD})(?:[-_. ]?(?:number|num|no\.?"
            rf"|nr\.?))?[\"'`]?\s{{0,2}}[#:=]?\s{{0,2}}[\"'`]?"
            rf"(?P<secret>\+?\(?[0-9]{{1,5}}\)?(?:(?:{_S}|/){{0,2}}\(?[0-9]{{1,11}}\)?){{1,6}}){_NOT_BEFORE}"
        ),
        _is_phone,
    ),
    Rule(
        "one_time_code",
        _OTP,
        re.compile(
            rf"(?i)(?<![A-Za-z])(?:{_CODE_WORD})[\"'`]?(?:\s{{1,2}}(?:is|was|for[^0-9\n:]{{1,40}}is|code|number"
            rf"|of|to))?\s{{0,2}}[:=#>-]{{0,2}}\s{{0,2}}"
            rf"[\"'`]?(?-i:{_CODE})(?![A-Za-z0-9])(?![.,:/-][0-9])"
        ),
        _is_code,
    ),
    Rule(
        "one_time_code",
        _OTP,
        re.compile(
            r"(?i)(?<![A-Za-z])(?:(?:your|use|enter|the)\s(?:[A-Za-z]{1,20}\s){0,2}(?:code|otp"
            r"|pin))(?:\s{1,2}(?:is|for[^0-9\n:]{1,40}is))?"
            rf"\s{{0,2}}:?\s{{0,2}}(?-i:{_CODE})(?![A-Za-z0-9])(?![.,:/-][0-9])"
        ),
    ),
    Rule(
        "one_time_code",
        r"(?i)[0-9]{3}\s{1,2}(?:is your|as your|to verify|to log in|to sign in|ist ihr)",
        re.compile(
            r"(?i)(?<![A-Za-z0-9.])(?-i:(?P<secret>[0-9]{4,8}|[0-9]{3}[- ][0-9]{3}"
            r"|[A-Z]{1,2}-[0-9]{4,8}))\s{1,2}(?:is your|as your|to verify|to log in|"
            r"to sign in|ist ihr)"
        ),
    ),
)
