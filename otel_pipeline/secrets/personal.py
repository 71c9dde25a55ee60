"""What tells who somebody is or lets them in: e-mail addresses, card numbers, phone numbers, one-time codes."""

from __future__ import annotations

import re
from typing import Final

from otel_pipeline.secrets.codes import CODES
from otel_pipeline.secrets.rules import Rule

_ENDING_LIST: Final = (
    "png jpg jpeg gif webp svg bmp tiff avif heic mp4 webm mov mkv avi wav mp3 flac ogg json yaml yml toml txt "
    "md csv py js ts css html safetensors ckpt pt pth bin gguf onnx zip gz tar whl so dll exe log conf local "
    "internal localdomain svc cluster lan"
)
_FILE_ENDINGS: Final = frozenset(_ENDING_LIST.split())
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
    r"6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12}|62[0-9]{14,17}|(?:5018|5019|5020|5038|5893|6304|6759"
    r"|676[1-3])[0-9]{8,15}|"
    r"220[0-4][0-9]{12}|9792[0-9]{12}|81[0-9]{14}|(?:60|65|81|82|508)[0-9]{13,14}"
)
_SEEDS: Final = re.compile(
    r"(?i)(?:seed|timestamp|_ns|nanos?|offset|bytes|size"
    r"|epoch)[\"']?\s{0,2}[=: ]\s{0,2}[\"']?$"
)


_CARD_WORDS: Final = re.compile(r"(?i)card|pan|visa|unionpay|maestro|credit|debit|payment|\bcc(?![a-z])")


def _is_card(match: re.Match[str]) -> bool:
    """The ranges of the networks and the check digit. A number called a seed is one."""
    digits = re.sub("[^0-9]", "", match[0])
    if len(set(digits)) < 2 or _NETWORKS.fullmatch(digits) is None or not luhn(digits):
        return False
    before = match.string[max(match.start() - 24, 0) : match.start()]
    if (match[0].isdigit() and len(digits) > 16) or before.endswith("_"):
        return _CARD_WORDS.search(before) is not None  # most numbers of that length are ids
    return _SEEDS.search(before) is None


def _is_iban(match: re.Match[str]) -> bool:
    """The check digits of ISO 7064 over the number of a bank account."""
    text = match[0].replace(" ", "")
    return 15 <= len(text) <= 34 and int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


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


def _is_american(match: re.Match[str]) -> bool:
    """Of the numbering plan of North America, and no row of sizes. In dots or blanks alone more must speak for it."""
    text: str = match["secret"]
    area, office, line = (int(group) for group in re.findall("[0-9]+", re.split("[ex]", text)[0])[-3:])
    if "(" in text or text.startswith("+"):
        return True
    if area < 200 or (area % 100 == 0 and area < 800) or text.startswith("1."):
        return False
    if all(number % 8 == 0 for number in (area, office, line)) or all(
        number % 10 == 0 for number in (area, office, line)
    ):
        return False
    if "-" in text:
        return True
    around = match.string[max(match.start() - 2, 0) : match.start()], match.string[match.end() : match.end() + 2]
    return office >= 200 and not any(re.search("[0-9]", each) for each in around)


def _is_phone(match: re.Match[str]) -> bool:
    text: str = match["secret"]
    return 7 <= sum(c.isdigit() for c in text) <= 15


def _is_international(match: re.Match[str]) -> bool:
    """No decimal with a sign; with 00 in place of + there must be more digits, as numbers of files begin so."""
    text = match["secret"]
    digits = sum(c.isdigit() for c in text)
    return (11 if text.startswith("00") else 8) <= digits <= 15 and re.fullmatch(r"\+[0-9]+\.[0-9]+", text) is None


_DATE_AND_TIME: Final = re.compile(r"0[1-9][0-3][0-9][/ ][0-2][0-9][0-5][0-9][0-5][0-9]")


def _is_national(match: re.Match[str]) -> bool:
    text = match["secret"]
    digits = sum(c.isdigit() for c in text)
    return 9 <= digits <= 12 and len(set(text)) > 4 and _DATE_AND_TIME.fullmatch(text) is None


_S: Final = r"[ .\u00a0\u2011\u2013-]"
_NOT_AFTER: Final = r"(?<![A-Za-z0-9])(?<![0-9][.,:/-])(?<![A-Za-z][-_.])(?<!#)"
_NOT_BEFORE: Final = r"(?![A-Za-z0-9_])(?![.,:/-][0-9])(?!-[A-Za-z])"
_PHONE_WORD: Final = r"phone|mobile?|whatsapp|msisdn|tel[:.]|call me(?: at| on)?|fax|sms|cell:|telefon|handy:"

_CARD: Final = r"[2-6][0-9]{12}|[0-9][ -](?:[0-9]{4}|[0-9]{6})[ -][0-9]"
_AT: Final = r"(?:@|%40)[A-Za-z0-9\x80-\xff][A-Za-z0-9_\x80-\xff-]*[.][A-Za-z0-9_\x80-\xff-]{2}"

_INTERNATIONAL: Final = re.compile(
    rf"(?<![A-Za-z0-9+])(?<![0-9][.,:/-])(?P<secret>(?:\+|%2[Bb]"
    rf"|(?<![.,-])(?<![0-9] )00(?=[1-9][0-9 ]{{0,3}}[ (/-]))\s?\(?[1-9][0-9]{{0,3}}\)?"
    rf"(?:(?:{_S}|/){{0,2}}\(?[0-9]{{1,6}}\)?){{2,7}}){_NOT_BEFORE}"
)

PERSONAL: Final[tuple[Rule, ...]] = (
    Rule(
        "email",
        _AT,
        re.compile(
            r"(?<![\w.+%])(?P<user>[\w!#$&*+~-]?[\w.!#$&'*+^~-]{0,63}(?:%2[Bb][\w.-]{1,40})?"
            r"|\"[^\"\n]{1,62}\")(?:@|%40)"
            r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?P<tld>xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-]*@)"
        ),
        lambda match: bool(match["user"]) and _is_address(match),
        sweep="at",
    ),
    Rule(
        "email",
        _AT,
        re.compile(
            r"(?P<user>[A-Za-z0-9._+-]{1,64}(?:%2[Bb][\w.-]{1,40})?)(?:@"
            r"|%40)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
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
        "card",
        r"[0-9]{4}(?:[.][0-9]{4}[.][0-9]{4}[.]|\xc2\xa0[0-9]{4}\xc2\xa0[0-9]{4}\xc2\xa0)[0-9]",
        re.compile(
            r"(?<![A-Za-z0-9])(?<![0-9][.-])[2-6][0-9]{3}(?P<x>[.\u00a0])[0-9]{4}(?P=x)[0-9]{4}(?P=x)[0-9]{4}"
            r"(?![A-Za-z0-9])"
        ),
        _is_card,
    ),
    Rule(
        "card",
        r"(?i:iban)[^\n]{0,3}|[A-Z]{2}[0-9]{2} [A-Z0-9]{4} [A-Z0-9]{4} [0-9]",
        re.compile(
            r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?"
            r"|[A-Z0-9]{11,30})(?![A-Za-z0-9])"
        ),
        _is_iban,
    ),
    Rule("phone", r"%2[bB][ (]{0,2}[1-9][0-9 ()./-]{0,4}[0-9 ()./\xc2\xa0-]{5}", _INTERNATIONAL, _is_international),
    Rule(
        "phone",
        r"\+[ (]{0,2}[1-9][0-9 ()./-]{0,4}[0-9 ()./\xc2\xa0-]{5}"
        r"|00[1-9][0-9 ]{0,3}[ (/-][0-9 ()./\xc2\xa0\xe2\x80\x91\x93-]{4}",
        _INTERNATIONAL,
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
        _is_american,
        sweep="digits",
    ),
    Rule(
        "phone",
        r"0[0-9]{1,4}\)? ?[ )./-] ?[0-9]{2}[0-9 .-]{2}",
        re.compile(
            rf"{_NOT_AFTER}(?P<secret>\(?0[1-9][0-9]{{1,3}}\)?(?: ?[/-] ?"
            rf"| )[1-9][0-9]{{2,4}}(?:[ -]?[0-9]{{2,5}}){{1,3}}|"
            rf"0[1-9](?:(?P<t>[ .-])[0-9]{{2}})(?:(?P=t)[0-9]{{2}}){{3}}"
            rf"|0[1-9][0-9](?: [0-9]{{3,4}}){{2}}|0[1-9][0-9]{{0,2}}-[0-9]{{4}}-[0-9]{{4}}){_NOT_BEFORE}"
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
    *CODES,
)
