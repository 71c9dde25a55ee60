"""Secrets known by the name that stands before them: assignments, pairs, elements, flags, commands, statements, prose.

Python's `re` is safe here: no pattern has nested repetition, and what can be long is bounded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import REDACTION_KEYS_KEPT
from otel_pipeline.secrets.rules import Rule
from otel_pipeline.secrets.values import SEPARATOR, VALUE, is_filled, is_issued, is_mixed, is_random, written

if TYPE_CHECKING:
    from collections.abc import Callable

_FOREIGN: Final = (
    "mot de passe|passwort|kennwort|wachtwoord|senha|salasana|contrase\u00f1a|has\u0142o|\u015fifre|l\u00f6senord"
    "|adgangskode|\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6\u7801|\u5bc6\u78bc|\u30d1\u30b9\u30ef\u30fc\u30c9"
    "|\ube44\ubc00\ubc88\ud638"
)
"""Words for password."""
_STRONG: Final = (
    r"pass[-_. ]?word|passwd|pass[-_. ]?phrase|pass[-_. ]?code|pwd|mysql_pwd|pgpassword|redis[-_]?pass|db[-_]?pass"
    rf"|smtp[-_]?pass|userpass|{_FOREIGN}|"
    r"client[-_. ]?secret|secret[-_. ]?(?:access[-_. ]?)?key|app[-_. ]?secret|api[-_. ]?secret|webhook[-_. ]?secret|"
    r"shared[-_. ]?secret|(?:session|signing|jwt|hmac|consumer|cookie|auth|oauth|encryption)[-_. ]?secret|"
    r"(?:private|api|account|auth|shared[-_. ]?access|signing|encryption|master|subscription|license|functions?"
    r"|app(?:lication)?|fal|bfl|openai|server|ingest(?:ion)?|service|storage|deploy|webhook|hmac|aes|jwt|fernet|cipher|crypto"
    r"|ssh|admin|root|xi|write)"
    r"[-_. ]?key|access[-_. ]?key(?![-_. ]?id)|key[-_. ]?base|code[-_. ]?verifier|"
    r"(?:api|access|refresh|auth|oauth|id|bearer|session|security|secret|bot|deploy|csrf|xsrf|service|app|user"
    r"|device|hf"
    r"|github|gitlab|slack|personal|vault|reset|login|jwt|private)[-_. ]?token|"
    r"x[-_]key|honeycomb[-_.]team|x[-_][a-z]{2,20}[-_](?:[a-z]{2,20}[-_]){0,2}(?:token|key|signature|secret)|"
    r"(?:auth|db|database|user|login|admin|root)[-_. ]?cred(?:ential)?s|sharedaccesssignature|csrfmiddlewaretoken"
)
"""Names that nothing harmless has: their value goes unless it is plainly none."""
_STRONG_NAME: Final = re.compile(rf"(?i)(?:{_STRONG})$")
_WEAK_NAME: Final = re.compile(
    r"(?:(?<![a-z])(?:secrete?|token|creds|credentials?)|(?<![A-Z])(?:Secrete?|Token|Creds|Credentials?)|SECRET"
    r"|TOKEN|CREDS"
    r"|CREDENTIALS?)$"
    r"|(?<![A-Za-z])[A-Z][A-Z0-9_]{1,40}_KEY$"
)
"""Names that harmless values have, too: the value goes if it looks random."""
_SHORT_NAME: Final = re.compile(
    r"(?i)(?<![A-Za-z])(?:[a-z0-9]{1,20}[-_. ])?(?:user|my|root|admin)?(?:pass|p(?:a?ss?)?w(?:o?rd?|d)?)$"
    r"|(?-i:[A-Z]PASS$|[a-z]P(?:ass|w)$)"
)
"""Short forms of password: the value goes if it mixes letters with digits."""
_VENDOR_NAME: Final = re.compile(
    r"(?i)(?:integration|routing|write|project|instrumentation|org|team|tenant|bot|client|partner|merchant|test"
    r"|live|prod"
    r"|production|staging|dev)[-_. ]?key$"
)
_KEY_NAME: Final = re.compile(r"(?i)(?:[-_. ]|(?-i:(?<=[a-z])(?=K)))key$")
"""Some key: the value goes if a machine made it."""
_HARMLESS_NAME: Final = re.compile(
    r"(?i)(?:cache|primary|public|sort|partition|idempotency|foreign|host|object|bucket|hot|dedup[a-z]*|shard|group"
    r"|next|continuation|page|sync|cancel(?:l?ation)?|eos|bos|pad|stop|start|special|image|last|first|class"
    r"|trigger|unk"
    r"|pub|schema|sequence)[-_. ]?(?:key|token)$"
)
NAME_CHARS_MAX: Final = 40
"""So much of a name is looked at."""


_JUDGES: Final = (
    (_HARMLESS_NAME, None),
    (_STRONG_NAME, is_filled),
    (_SHORT_NAME, is_mixed),
    (_WEAK_NAME, is_random),
    (_VENDOR_NAME, is_issued),
    (_KEY_NAME, is_issued),
)


@lru_cache(REDACTION_KEYS_KEPT)
def _judge(name: str) -> Callable[[str], bool] | None:
    """What a value must look like to be a secret behind this name; None: whatever it looks like, it stays."""
    return next((judge for names, judge in _JUDGES if names.search(name)), None)


_SENTENCE: Final = re.compile(r": [a-z]{3,12} [a-z]{2}")
"""Behind `password`: a word and another one."""


def _named(match: re.Match[str]) -> bool:
    """The end of a name is what the pattern looks for, since that is fast; here the whole name is judged."""
    value = written(match)
    if "," in match["between"] and "alue" not in match["between"]:
        return is_mixed(value)
    if _SENTENCE.fullmatch(
        f"{match['between']}{value}{match.string[match.end('c') : match.end('c') + 3]}" if match["c"] else ""
    ):
        return False
    judge = _judge(match.string[max(match.start() - NAME_CHARS_MAX, 0) : match.end("name")])
    return judge is not None and judge(value) and not _is_passed_on(match, value) and not _is_prose(value)


def _is_prose(value: str) -> bool:
    """A label or a sentence, as in the texts of a user interface: words, not all of them small and plain."""
    return " " in value and not any(c.isdigit() for c in value) and re.fullmatch("[a-z ]+", value) is None


def _is_passed_on(match: re.Match[str], value: str) -> bool:
    """`connect(password=password)`: a variable of the same name."""
    if not match["c"] or not value.isidentifier():
        return False
    before = match.string[max(match.start() - len(value), 0) : match.end("name")]
    behind = match.string[match.end("c") : match.end("c") + 1]
    return before.endswith(value) and (behind in {",", ")"} or match["between"] == " = ")


_HARMLESS_SUFFIX: Final = re.compile(
    r"(?i)[-_.]?(?:ids?|names?|types?|count|length|len|size|file|path|dir|url|uri|endpoint|version|ttl|expir\w*"
    r"|at|limit|usage"
    r"|index|policy|required|enabled|status|hash|age|rotation\w*|source|provider|ref|field|hint|prefix|region"
    r"|uuid|arn|scope"
    r"|algorithm|service|store|manager|vault|rotat\w*|updated|created|date|time|bucket|budget|rate|max|min|per\w*"
    r"|reset\w*"
    r"|ring|word|board|frames?|pair)s?(?:[-_.]?\w*)"
)


def _suffixed(match: re.Match[str]) -> bool:
    """`api_key_prod`, `mySecretString`: the name goes on behind the word that tells."""
    value = written(match)
    is_password = match[0].lower().startswith("passw")
    return _HARMLESS_SUFFIX.fullmatch(match["suffix"]) is None and (
        is_random(value) or (is_password and is_mixed(value))
    )


def _short(match: re.Match[str]) -> bool:
    return is_random(written(match))


_THEN: Final = r"[\"'`\\\[\]]{0,10}\s{0,3}(?:=|:|,|%3d|%3a|[?+.!]{1,2}=|->|\|\|=|\xef\xbc\x9a)"
_ENDS: Final = (
    r"pass[-_. ]?(?:word|phrase|code)|p(?:a?ss?)?w(?:o?rd?|d)?|pass|secrete?|token|creds|credentials?"
    r"|signature|verifier|key[-_. ]?base|honeycomb[-_.]team"
)
_KEYS: Final = r"[a-z][-_. ]?key"  # also of such a name as accessKey
_ABROAD: Final = "|".join(
    "".join(f"\\x{byte:02x}" if byte > 127 else chr(byte) for byte in word.encode()) for word in _FOREIGN.split("|")
)
_TRIGGER: Final = (
    rf"(?i)(?:{_ENDS}|middlewaretoken|{_KEYS})"
    rf"(?:{_THEN}|%22|&quot;|\(\s{{0,3}}[\"']|\s{{1,2}}(?:string|str)\s|[\"']?,?\s{{1,20}}[\"'\\]{{0,2}}value)"
)
_BETWEEN: Final = rf"(?P<between>{SEPARATOR})"
_NAMES: Final = (
    r"(?-i:[WwPpSsKkTtCcVvHh])(?:(?<=[Ww])ord|(?<=[Pp])(?:hrase|asscode|(?:a?ss?)?w(?:o?rd?|d)?|ass)"
    r"|(?<=[Ss])(?:ecrete?|ignature)|(?<=[Kk])ey(?:[-_. ]?base)?|(?<=[Tt])oken|(?<=[Cc])(?:reds|redentials?)"
    r"|(?<=[Vv])erifier|(?<=[Hh])oneycomb[-_.]team)"
)
"""The ends of names. With their first letters as one class Python's engine passes over other letters twice as fast."""
_WEAK: Final = r"auth|session(?:[-_]?id)?|sid|signature|sig|jwt|nonce|hash_?key|salt"

_SPOKEN: Final = r"password|passwd|passphrase|secret|api[-_ ]?key|token"
_AHEAD: Final = r"(?=\s?:|\s(?:is|was|to)\s)"
"""No trigger can look ahead."""
_IS: Final = (
    r"(?:for\s[^\s:=]{1,40}(?:\s[^\s:=]{1,40})?" + _AHEAD + r"\s?)?"
    r"(?:(?:provided|given|used|received|supplied|is|was|to|now|(?:re)?set to|(?:chang|updat)ed to)\s{0,2}){0,3}"
)


def _told(match: re.Match[str]) -> bool:
    """`the password is X`: X is quoted or no word."""
    value = match["secret"].rstrip(".,:)!?")
    if not is_filled(value) or "=" in value[:2] or "/" in value[:1]:
        return False
    marked = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    quoted = bool(match["q"]) and (" is" in match[0].lower() or is_random(value))
    return marked or quoted or bool(re.match(r"[cs]?sk-\w{3}", value))


_FLAG: Final = (
    r"--(?:[a-z]{1,20}[-_]){0,3}(?:password|pass|passwd|passphrase|pwd|token|api[-_]?key|secret|access[-_]key"
    r"|secret[-_]key"
    r"|private[-_]key|credentials?)"
)


def _flagged(match: re.Match[str]) -> bool:
    return is_filled(match["secret"]) and not match["secret"].isdigit()


def _logged_in(match: re.Match[str]) -> bool:
    """A name and a password, and no two numbers such as a user and a group."""
    user, _, password = (match["a"] or match["b"] or match["c"]).partition(":")
    return is_filled(password) and not (user.isdigit() and password.isdigit())


_COMMANDS: Final = (
    ("redis-cli|keydb-cli|valkey-cli", r"-a\s{1,3}|--pass\s{1,3}"),
    (r"mysql(?:dump|admin|show|import|check|pump)?|mariadb(?:-dump|-admin)?", r"-p(?=[^\s-])|password\s{1,3}"),
    ("sshpass", r"-p\s{0,3}"),
    (
        r"mongo(?:sh|dump|restore|export|import)?|(?:docker|podman|az|helm\sregistry)\slogin|twine\supload"
        r"|rabbitmqadmin",
        r"-p\s{1,3}",
    ),
    (r"sqlcmd|mosquitto_(?:pub|sub)|zip|unzip|bcp|isql", r"-P\s{0,3}"),
    (r"ldap(?:search|modify|add|whoami)", r"-w\s{1,3}"),
    ("smbclient|smbget|rpcclient", r"-U\s{0,3}[\"']?[^\s%\"']{1,64}%"),
    ("curl", r"-u[\"']?[^\s:\"'-][^\s:\"']{0,63}:"),
    ("https?", r"-a\s{1,3}[\"']?[^\s:\"']{1,64}:"),
    (r"gh\ssecret\sset", r"(?:--body|-b)\s{1,3}"),
    ("openssl", r"-pass(?:in|out)?\s{1,3}[\"']?pass:"),
    (
        r"rabbitmqctl\s(?:change_password|add_user|authenticate_user)\s\S{1,64}"
        r"|htpasswd\s-[a-zA-Z]{1,4}\s\S{1,256}\s\S{1,64}",
        "",
    ),
    (r"wandb\slogin|vault\slogin|ngrok\s(?:authtoken|config\sadd-authtoken)|aws\sconfigure\sset\s[a-z_]{1,40}", ""),
)
"""Commands and their flag before a password, where it is no word."""
_COMMAND_TRIGGER: Final = (
    r"(?:redis-cli|keydb-cli|valkey-cli|mysql[a-z]{0,6}|mariadb[a-z-]{0,6}|sshpass|mongo[a-z]{0,7}|docker login"
    r"|az login"
    r"|podman login|registry login|twine upload|rabbitmqadmin|sqlcmd|mosquitto_[ps]ub|zip|bcp|isql|ldap[a-z]{3,6}"
    r"|smb[a-z]{3,6}|rpcclient|curl|openssl) |https? -a |rabbitmqctl [ac][a-z]{2}|htpasswd -|gh secret set "
    r"|configure set "
    r"|(?:wandb login|vault login|authtoken) "
)


def _command(names: str, flag: str) -> Rule:
    between = rf"(?:\s[^\n|;]{{0,400}}?)?\s(?:{flag})" if flag else r"\s{1,3}(?:--relogin\s)?"
    pattern = re.compile(rf"(?<![\w.-])(?:{names}){between}[\"']?(?P<secret>[^\s\"'-][^\s\"']{{2,511}})")
    return Rule(
        "password",
        _COMMAND_TRIGGER,
        pattern,
        lambda match: is_filled(match["secret"]) and (bool(flag) or is_mixed(match["secret"])),
    )


def _first_of_statement(match: re.Match[str]) -> bool:
    """A command of Redis is a whole text or line; within a sentence what follows must be no word."""
    value = match["secret"]
    return is_mixed(value) or (is_filled(value) and len(value) >= 6 and match["sign"] is not None)


def _in_element(match: re.Match[str]) -> bool:
    judge = _judge(match.string[max(match.start("name") - NAME_CHARS_MAX, 0) : match.end("name")])
    return judge is not None and judge(match["secret"])


ASSIGNMENTS: Final[tuple[Rule, ...]] = (
    Rule(  # A name and a password as the driver of Go writes them.
        "url_credentials",
        r"@(?:tcp|unix)[(]",
        re.compile(r"(?<![^\s\"'=])[^\s:@\"'/=]{1,64}:(?P<secret>[^\s\"']{1,256})@(?:tcp|unix)\("),
    ),
    Rule(
        "password",
        rf"(?i)(?:{_ABROAD}){_THEN}",
        re.compile(rf"(?i)(?P<name>{_FOREIGN})(?![A-Za-z0-9])(?={_BETWEEN}{VALUE})"),
        _named,
    ),
    Rule("password", _TRIGGER, re.compile(rf"(?i)(?P<name>{_NAMES})(?![A-Za-z0-9])(?={_BETWEEN}{VALUE})"), _named),
    Rule(
        "password",
        rf"(?i)(?:auth|session[-_ ]?(?:id)?|sid|signature|sig|jwt|nonce|hash_?key|salt)(?:{_THEN}|%22)",
        re.compile(
            rf"(?i)(?:(?<![A-Za-z])"
            rf"|(?-i:(?<=[a-z])(?=[A-Z])))(?:{_WEAK})(?![A-Za-z0-9])(?={SEPARATOR}{VALUE})"
        ),
        _short,
    ),
    Rule(
        "password",
        rf"(?i)(?:password|passwd|secret|token|api[-_]?key|private[-_]?key)[a-z0-9_]{{1,16}}(?:{_THEN}|\s(?:string"
        rf"|str)\s)",
        re.compile(
            rf"(?i)(?:password|passwd|secret|token|api[-_]?key"
            rf"|private[-_]?key)(?P<suffix>(?-i:[A-Z0-9_])[a-z0-9_]{{0,40}})(?={SEPARATOR}{VALUE})"
        ),
        _suffixed,
    ),
    Rule(  # <Password>, <wsse:Password Type="...">
        "password",
        r"(?i)(?:word|phrase|passwd|pwd|secret|token|key)>",
        re.compile(
            r"(?i)(?:<|&lt;)(?:\w{1,20}:)?[\w.-]{0,40}?(?P<name>word|phrase|passwd|pwd|secret|key"
            r"|token)(?:\s[^<>]{0,200})?"
            r"(?:>|&gt;)\s{0,40}(?:<!\[CDATA\[)?(?P<secret>[^<>&\s][^<>&]{2,4095}?)(?:\]\]>)?\s{0,40}(?:<|&lt;|$)"
        ),
        _in_element,
    ),
    Rule(
        "password",
        rf"(?i)(?:{_SPOKEN})\s{{1,3}}(?:{_IS})[:=]?\s{{0,3}}[\"'`]?[^\s\"'`,;]{{6}}".replace(_AHEAD, ""),
        re.compile(
            rf"(?i)(?<![A-Za-z])(?:{_SPOKEN})\s{{1,3}}{_IS}[:=]?\s{{0,3}}(?P<q>[\"'`]?)"
            rf"(?P<secret>[^\s\"'`,;]{{6,512}})"
        ),
        _told,
    ),
    Rule(
        "password",
        rf"{_FLAG}(?:[=\s]|[\"'],)",
        re.compile(
            rf"(?<![\w-]){_FLAG}(?:=|\s{{1,3}}|[\"'],\s{{0,3}}(?=[\"']))[\"']?(?P<secret>(?!-)[^\s\"']{{3,1024}})"
        ),
        _flagged,
    ),
    Rule(
        "url_credentials",
        r"(?:-u|--user|--proxy-user)[\s=]{1,3}[\"']?[^\s:\"']{1,200}:",
        re.compile(
            r"(?<![\w-])(?:-u|--user|--proxy-user)(?:=|\s{1,3})(?:\"(?P<a>[^\s:\"]{1,200}:[^\"]{3,512})"
            r"|'(?P<b>[^\s:']{1,200}:[^']{3,512})|(?P<c>[^\s:\"']{1,200}:[^\s\"']{3,512}))"
        ),
        _logged_in,
    ),
    *(_command(*row) for row in _COMMANDS),
    Rule(  # Statements of SQL.
        "password",
        r"(?i)(?:identified\s{1,3}(?:by|with)|password\s{0,3}(?:=\s{0,3})?(?:\(\s?)?n?'|set\s{1,3}password)",
        re.compile(
            r"(?i)(?:identified\s{1,3}(?:with\s{1,3}\S{1,64}\s{1,3})?(?:by|as)(?:\s{1,3}password)?"
            r"|(?<![\w.])password)"
            r"\s{0,3}=?\s{0,3}\(?\s?N?(?:'(?P<a>(?:[^']|''){1,512})'|\"(?P<b>[^\"]{1,512})\")"
        ),
        lambda match: is_filled(match["a"] or match["b"]),
    ),
    Rule(
        "password",
        r"(?i)identified\s{1,3}by",
        re.compile(r"(?i)identified\s{1,3}by\s{1,3}(?P<secret>[^\s'\";)]{6,512})"),
        lambda match: is_mixed(match["secret"]),
    ),
    Rule(  # X is the password.
        "password",
        r"(?i) is (?:the|your|my|our) (?:new )?(?:password|passphrase|secret|token|api)",
        re.compile(
            r"(?i)(?<![^\s\"'`#/])[\"'`]?(?P<secret>[^\s\"'`]{8,128})[\"'`]?\sis\s(?:the|your|my|our)\s(?:new\s)?"
            r"(?:password|passphrase|secret|token|api[ _-]?key)"
        ),
        lambda match: is_mixed(match["secret"]),
    ),
    Rule(  # Commands of Redis, and of mail and file servers.
        "password",
        r"(?:AUTH|PASS)\s{1,3}[\"']?[^\s\"']{4}",
        re.compile(
            r"(?:(?P<sign>^|[\r\n\"'`])|(?<![A-Za-z0-9_-]))(?:AUTH|PASS)\s{1,3}(?:(?:PLAIN|LOGIN)\s)?"
            r"(?:[\w.-]{1,64}\s(?=[^\s\"']{4,512}(?:[\r\n\"'`]|$)))?[\"']?(?P<secret>[^\s\"'`]{4,512})(?=[\s\"'`]|$)"
        ),
        _first_of_statement,
    ),
    Rule(
        "password",
        r"(?i)(?:requirepass|masterauth)\s{1,3}[^\s]",
        re.compile(r"(?i)(?:requirepass|masterauth)\s{1,3}[\"']?(?P<secret>[^\s\"']{4,512})"),
        lambda match: is_filled(match["secret"]),
    ),
)
