"""One-time codes: digits beside a word that says what they are, in the languages that platforms write in.

Digits alone are no secret, so what these rules look for is the word, before the digits or behind them.
"""

from __future__ import annotations

import re
from typing import Final

from otel_pipeline.secrets.rules import Rule

_DIGITS: Final = (
    r"(?P<secret>[0-9]{4,8}|[0-9]{3}[- ][0-9]{3}|[A-Z]{1,2}-[0-9]{5,8}|[0-9]{4}[- ][0-9]{4}"
    r"|[0-9]{2}(?:[- ][0-9]{2}){2})"
)
_AFTER: Final = r"(?![A-Za-z0-9])(?![.,:/-][0-9])"

_KINDS: Final = (
    r"verification|security|confirmation|login|log-?in|sign[- ]?in|sign[- ]?up|authentication|authorization|auth"
    r"|access|recovery"
    r"|backup|reset|sms|e-?mail|authenticator|two[- ]?(?:factor|step)|2fa|mfa|tan|activation|verify|one[- ]?time"
    r"|validation"
    r"|approval|pairing|magic|temporary|invite|unlock"
)
_WORD: Final = (
    r"t?otp(?:[-_ ](?:code|token|pin|password|value))?|(?:2fa(?![0-9])|mfa)(?:[-_ ](?:code|token|pin))?"
    r"|pin(?:[-_ ]?code)?"
    r"|passcode"
    r"|one[-_ ]?time[-_ ]?(?:pass)?(?:code|password|pin|token)?|tan"
    rf"|(?:{_KINDS})[-_ ]{{0,2}}(?:code|pin|number|token|passcode)"
)
_LINK: Final = (
    r"[\"'`)]?(?:\s{1,2}(?:is|was|for[^0-9\n:]{1,40}(?:is|:)|code|number|of|to|below|has been|sent))?\s{0,2}"
    r"(?:=>|[:=#>\u2013-]){0,2}\s{0,2}[\"'`*<(]{0,2}"
)

_LOCAL: Final = (
    # German, Dutch and the North; each ends in its word for code.
    r"(?:best\u00e4tigungs|sicherheits|verifizierungs|anmelde|einmal|zugangs|freischalt|aktivierungs)-?(?:code"
    r"|kennwort"
    r"|passwort|pin)",
    r"(?:verificatie|beveiligings|inlog|toegangs)code|(?:verifierings|eng\u00e5ngs|bekr\u00e6ftelses|engangs"
    r"|bekreftelses"
    r"|sikkerheds|s\u00e4kerhets)kode?n?",
    # Romance languages.
    r"code\s(?:de\s|d['\u2019]|\u00e0\s)(?:v[\u00e9e]rification|s[\u00e9e]curit[\u00e9e]|confirmation|connexion"
    r"|validation"
    r"|authentification|acc[\u00e8e]s|usage\sunique|activation)",
    r"c[\u00f3o]digo\s(?:de\s|\u00fanico|temporal)(?:un\ssolo\suso|verificaci[\u00f3o]n|seguridad"
    r"|confirmaci[\u00f3o]n|acceso"
    r"|verifica[\u00e7c][\u00e3a]o|seguran[\u00e7c]a|confirma[\u00e7c][\u00e3a]o|acesso|autenticaci[\u00f3o]n"
    r"|autentica[\u00e7c][\u00e3a]o|activaci[\u00f3o]n|inicio\sde\ssesi[\u00f3o]n)?",
    r"codice\s(?:di\s)?(?:verifica|sicurezza|conferma|accesso|autenticazione|temporaneo|otp|monouso)",
    r"cod(?:ul)?\s(?:de\s)?(?:verificare|securitate|confirmare)",
    r"(?:dein|ihr|votre|ton|uw|jouw|je|din|tu|su|seu|tuo|suo|tw\u00f3j)\s(?:code|c[\u00f3o]digo|codice|kode?)",
    # Slavic languages, Turkish, Greek, Hungarian.
    r"kod\s(?:weryfikacyjny|potwierdzaj\u0105cy|autoryzacyjny|dost\u0119pu)|ov\u011b\u0159ovac\u00ed\sk\u00f3d",
    r"\u043a\u043e\u0434\s(?:\u0434\u043b\u044f\s)?(?:\u043f\u043e\u0434\u0442\u0432\u0435\u0440\u0436\w+"
    r"|\u0434\u043e\u0441\u0442\u0443\u043f\w+"
    r"|\u043f\u0440\u043e\u0432\u0435\u0440\w+|\u0432\u0445\u043e\u0434\w+"
    r"|\u043f\u0456\u0434\u0442\u0432\u0435\u0440\u0434\w+|\u0431\u0435\u0437\u043e\u043f\w+)",
    r"do\u011frulama\skodu\w{0,4}|g\u00fcvenlik\skodu\w{0,4}|onay\skodu\w{0,4}",
    r"\u03ba\u03c9\u03b4\u03b9\u03ba\u03cc\u03c2\s\w{1,20}|meger\u0151s\u00edt\u0151\sk\u00f3d",
    # Chinese, Japanese, Korean, Vietnamese, Indonesian, Thai, Arabic, Hebrew.
    r"\u9a8c\u8bc1\u7801|\u9a57\u8b49\u78bc|\u6821\u9a8c\u7801|\u52a8\u6001(?:\u7801|\u5bc6\u7801)"
    r"|\u786e\u8ba4\u7801|\u5b89\u5168\u7801",
    r"(?:\u8a8d\u8a3c|\u78ba\u8a8d|\u30bb\u30ad\u30e5\u30ea\u30c6\u30a3"
    r"|\u30ed\u30b0\u30a4\u30f3)(?:\u30b3\u30fc\u30c9|\u756a\u53f7)"
    r"|\u30ef\u30f3\u30bf\u30a4\u30e0\u30d1\u30b9\u30ef\u30fc\u30c9",
    r"\uc778\uc99d\s?(?:\ubc88\ud638|\ucf54\ub4dc)|\ubcf4\uc548\s?\ucf54\ub4dc|\ud655\uc778\s?\ucf54\ub4dc",
    r"m\u00e3\sx\u00e1c\s(?:nh\u1eadn|th\u1ef1c|minh)|kode\s(?:verifikasi|otp|keamanan|konfirmasi)",
    r"\u0e23\u0e2b\u0e31\u0e2a(?:\u0e22\u0e37\u0e19\u0e22\u0e31\u0e19)?"
    r"|\u0631\u0645\u0632\s\u0627\u0644(?:\u062a\u062d\u0642\u0642|\u062a\u0623\u0643\u064a\u062f"
    r"|\u062f\u062e\u0648\u0644)|\u05e7\u05d5\u05d3\s(?:\u05d4?\u05d0\u05d9\u05de\u05d5\u05ea"
    r"|\u05d0\u05d9\u05e9\u05d5\u05e8)",
)
"""Words for such a code. Letters that are no ASCII are written out by their numbers, as triggers need bytes."""

_ANY_LOCAL: Final = "|".join(_LOCAL)


def _raw(*words: str) -> str:
    """A trigger for any of these words."""
    return "|".join("".join(f"\\x{byte:02x}" if byte > 127 else chr(byte) for byte in word.encode()) for word in words)


_LOCAL_TRIGGER: Final = (
    r"(?i)(?:(?:tigungs|heits|erungs|melde|inmal|zugangs|schalt)-?(?:code|kennwort|passwort|pin)|(?:ficatie"
    r"|igings|inlog"
    r"|toegangs)code|(?:erings|ngs|lses|rheds|rhets)kode?n?|(?:ein|ihr|otre|ton|uw|je|din|tu|su|eu|uo"
    r"|w\xc3\xb3j) (?:code|c\xc3\xb3digo|codigo|codice|kod)|code (?:de |d.|\xc3\xa0 )[vscau]|digo (?:de |tem"
    r"|\xc3)|codice "
    r"|cod(?:ul)? (?:de )?(?:veri|secu|conf)|kod (?:wery|potw|auto|dost)|vac\xc3\xad k\xc3\xb3d|kodu|kode (?:veri"
    r"|otp|keam|konf)|"
    + _raw("од подтв", "од для", "од дост", "од пров", "од вход", "од підтв", "од безоп", "ωδικός ", "ítő kód")
    + "|"
    + _raw("验证码", "驗證碼", "校验码", "动态", "确认码", "安全码", "コード", "番号", "パスワード")
    + "|"
    + _raw("인증", "보안", "확인", "mã xác", "รหัส", "رمز ال", "קוד ")
    + ")"
)

_TRIGGER: Final = (
    r"(?i)(?:otp|mfa|pin|code|cvv2?|cvc2?|csc|tan|time|token|number|password)[\"'`)]?(?:\s{1,2}(?:is|was|code"
    r"|below|sent"
    r"|has been|number|of|to))?\s{0,2}(?:[:=#>-]{0,2}|\xe2\x80\x93)\s{0,2}[\"'`*<(]{0,2}(?:[a-z]{1,2}-)?[0-9]{2}"
    r"|(?:code|otp|pin|token|number|password) (?:to|for) [^0-9\n:]{1,40}(?::| is) ?[0-9]"
    r"|2fa[^0-9a-z][^0-9]{0,40}[0-9]{2}"  # with digits close behind it stands in every tenth id of hexadecimal digits
)


def _is_code(match: re.Match[str]) -> bool:
    """A year is a code only beside a word that means nothing else."""
    word = match[0].lower()
    return not re.fullmatch(r"(?:19|20)[0-9]{2}", match["secret"]) or "otp" in word or "pin" in word


_MESSAGE: Final = re.compile(
    r"(?i)\bshare\b|compart|condivid|partage|teilen|weiter|g\u00fcltig|valable|v\u00e1lid|expir|caduc"
    r"|\u0441\u043e\u043e\u0431\u0449|\u043d\u0438\u043a\u043e\u043c\u0443|\u0434\u0435\u0439\u0441\u0442\u0432"
    r"|expires?\b|valid (?:for|until)|verif|log ?in\b|sign ?in\b|minutes|authenticat|ignore this"
)


def _is_message(match: re.Match[str]) -> bool:
    """The rest of the text speaks of what one does with such a code."""
    return _is_code(match) and _MESSAGE.search(match.string) is not None


def _is_named(match: re.Match[str]) -> bool:
    """Digits within an identifier are no code."""
    return _is_code(match) and "\n" not in match[0]


CODES: Final[tuple[Rule, ...]] = (
    Rule(
        "one_time_code",
        _TRIGGER,
        re.compile(
            r"(?i)(?<![A-Za-z])(?:cvv2?|cvc2?"
            r"|csc)[\"'`]?\s{0,2}[:=]?\s{0,2}[\"'`]?(?P<secret>[0-9]{3,4})(?![0-9A-Za-z])"
        ),
    ),
    Rule(
        "one_time_code",
        _TRIGGER,
        re.compile(rf"(?i)(?<![A-Za-z])(?:{_WORD}){_LINK}(?-i:{_DIGITS}){_AFTER}"),
        _is_code,
    ),
    Rule(
        "one_time_code",
        _TRIGGER,
        re.compile(
            r"(?i)(?<![A-Za-z])(?:(?:your|use|enter|type|input|this|the|confirm with|verify with"
            r"|login with)\s(?:[A-Za-z0-9]{1,20}\s){0,3}"
            r"(?:code|otp|pin))"
            rf"(?:\s{{1,2}}(?:is|for[^0-9\n:]{{1,40}}is"
            rf"|to\s[^0-9\n:]{{1,40}}(?=:)))?\s{{0,2}}:?\s{{0,2}}(?-i:{_DIGITS}){_AFTER}"
        ),
        _is_code,
    ),
    Rule(
        "one_time_code",
        _TRIGGER,
        re.compile(rf"(?i)(?<![A-Za-z0-9_-])(?<![A-Za-z0-9][ _.])code(?:\sis|:)\s{{1,2}}(?-i:{_DIGITS}){_AFTER}"),
        _is_message,
    ),
    Rule(
        "one_time_code",
        _TRIGGER,
        re.compile(r"(?i)[\"']code[\"']\s?:\s?[\"'](?P<secret>[0-9]{4,8})[\"']"),
        lambda match: re.search("(?i)t?otp|2fa|mfa|two.?factor|sms", match.string) is not None,
    ),
    Rule(
        "one_time_code",
        rf"(?i)(?:digo|dice|kod|{_raw('од')}): [0-9]{{2}}",
        re.compile(
            rf"(?i)(?:c[\u00f3o]digo|codice|kod"
            rf"|\u043a\u043e\u0434):\s(?-i:{_DIGITS})(?![A-Za-z0-9])(?![.,:/-][0-9])"
        ),
        _is_message,
    ),
    Rule(
        "one_time_code",
        r"(?i)[0-9]{2}[\"'`*.]{0,2}\s{1,2}(?:is your|is the|as your|to verify|to confirm|to (?:log"
        r"|sign)[ -]?(?:in|on)|to (?:reset|unlock"
        r"|authenticate|complete|access|continue)|ist (?:ihr|dein|der)|est (?:votre|ton|le)|es (?:tu|su|el)"
        r"|\xc3\xa8 il)",
        re.compile(
            rf"(?i)(?<![A-Za-z0-9.])(?-i:{_DIGITS})[\"'`*.]{{0,2}}\s{{1,2}}(?:(?:is|as)\s(?:your"
            rf"|the)\s(?:[\w-]{{1,20}}\s){{0,4}}"
            r"(?:code|otp|pin|passcode|password|token)|to\s(?:verify|confirm|(?:log|sign)[ -]?(?:in|on)|reset"
            r"|unlock|authenticate"
            r"|complete|access|continue)|ist\s(?:ihr|dein|der)\s|est\s(?:votre|ton|le)\scode|es\s(?:tu|su|el)\sc"
            r"|\u00e8\sil\s(?:tuo|suo)\scodice)"
        ),
        _is_code,
    ),
    Rule(
        "one_time_code",
        _LOCAL_TRIGGER,
        re.compile(
            rf"(?i)(?:{_ANY_LOCAL})[^0-9\n.;]{{0,24}}(?:[A-Za-z]{{1,2}}-)?(?-i:{_DIGITS})(?![A-Za-z0-9])(?!:[0-9])"
        ),
        _is_named,
    ),
    Rule(
        "one_time_code",
        _LOCAL_TRIGGER,
        re.compile(rf"(?i)(?<![A-Za-z0-9.])(?-i:{_DIGITS})[^0-9\n.;:=]{{0,30}}(?:{_ANY_LOCAL})"),
        _is_named,
    ),
)
