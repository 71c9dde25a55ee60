"""Tokens whose makers gave them a form: prefixes and lengths as documented by each. Also JWT and private keys."""

from __future__ import annotations

import re
from typing import Final

from otel_pipeline.secrets.rules import EDGE, Rule

TRIGGER_CHARS: Final = 8
"""So much of a token's body is in its trigger: enough to leave words alone, short enough for a fast automaton."""

_WORD: Final = "[A-Za-z0-9]"
_URL: Final = "[A-Za-z0-9_-]"
_DOT: Final = "[A-Za-z0-9_.-]"
_B64: Final = "[A-Za-z0-9+/=_-]"
_HEX: Final = "[0-9a-f]"
_UUID: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

_PREFIXED: Final[tuple[tuple[str, str, int], ...]] = (
    # Model and media providers.
    ("sk-(?:ant|or|proj|svcacct|admin|lf|None)-", _URL, 16),
    ("c?sk-", _WORD, 20),
    ("sk_", _HEX, 32),
    ("pk-lf-", _URL, 16),
    ("hf_", _WORD, 20),
    ("api_org_", _WORD, 20),
    ("r8_", _WORD, 20),
    ("rpa_", _WORD, 20),
    ("fal_", _URL, 20),
    ("fw_", _WORD, 20),
    ("gsk_", _WORD, 20),
    ("xai-", _URL, 20),
    ("pplx-", _WORD, 20),
    ("luma-", _URL, 32),
    ("bfl_", _URL, 16),
    ("stab-", _URL, 20),
    ("key_[0-9a-f]{16}", _HEX, 16),
    ("tgp_v1_", _URL, 20),
    ("pcsk_", _URL, 20),
    ("jina_", _URL, 20),
    ("tvly-", _URL, 16),
    ("e2b_", _HEX, 20),
    ("lsv2_(?:pt|sk)_", _URL, 20),
    ("sk_car_", _URL, 16),
    ("a[ks]-", _WORD, 20),
    # Clouds.
    ("(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|AIPA|ANPA|ANVA)", "[A-Z0-9]", 16),
    ("ABSK", _B64, 40),
    ("AIza", _URL, 30),
    ("ya29[.]", _URL, 20),
    ("1//0", _URL, 30),
    ("GOCSPX-", _URL, 20),
    ("GOOG", "[A-Z0-9]", 20),
    ("LTAI", _WORD, 12),
    ("AKID", _WORD, 24),
    ("AQVN", _URL, 35),
    ("t1[.][A-Za-z0-9_-]{1,60}[.]", _URL, 60),
    ("d(?:op|oo|or)_v1_", _HEX, 32),
    ("HRKU-", _URL, 30),
    ("nf[a-z]_", _WORD, 30),
    ("vercel_blob_rw_", _URL, 20),
    ("vc[a-z]_", _WORD, 24),
    ("fm[12][a-z]?_", _B64, 40),
    ("fo1_", _URL, 30),
    ("sb[ps]_(?:v0_)?", _HEX, 32),
    ("sb_(?:secret|publishable)_", _URL, 20),
    ("pscale_(?:tkn|pw|oauth)_", _DOT, 20),
    ("dapi", _HEX, 32),
    ("K00[0-9]", _B64, 27),
    ("CFPAT-", _URL, 20),
    ("v1[.]0-", "[0-9a-f-]", 60),
    ("pul-", _HEX, 32),
    ("hv[sbr][.]", _URL, 20),
    ("dp[.](?:pt|st|ct|sa|scim|audit)[.]", _DOT, 30),
    ("[A-Za-z0-9]{14}[.]atlasv1[.]", _URL, 50),
    ("ops_eyJ", _B64, 50),
    ("AGE-SECRET-KEY-1", "[A-Z0-9]", 30),
    ("rnd_", _WORD, 24),
    ("akab-", "[a-z0-9-]", 30),
    ("bedrock-api-key-", _B64, 20),
    ("BBDC-", _B64, 30),
    ("SWM(?:TKN|KEY)-1-", "[A-Za-z0-9-]", 40),
    ("llx-", _URL, 30),
    ("cosmo_", _HEX, 32),
    ("S[UAONC]A[A-Z2-7]{8}", "[A-Z2-7]", 47),
    ("cmVmdGtu", _WORD, 40),
    ("TlRMTVNTUA", _B64, 24),
    ("eyJrIjoi", _B64, 40),
    ("LS0tLS1CRUdJTi", _B64, 40),
    ("tskey-[a-z]{3,12}-", _URL, 16),
    ("cf(?:k|ut|at)_", _WORD, 30),
    ("sha256~", _URL, 43),
    ("tk-us-", _URL, 40),
    ("sm_(?:pat|sat|aat)_", _WORD, 16),
    ("API-", "[A-Z0-9]", 26),
    ("dnkey-", _URL, 24),
    ("4b1d", _WORD, 38),
    ("nv[ak]pi-", _URL, 20),
    ("AQ[.]Ab", _URL, 30),
    ("wandb_v1_", _URL, 24),
    ("ctx7sk-", _URL, 20),
    ("sk-kimi-", _URL, 20),
    # Code and packages.
    ("gh[pousr]_", "[A-Za-z0-9_]", 20),
    ("github_pat_", "[A-Za-z0-9_]", 20),
    ("gl(?:pat|dt|rtr?|cbt|ptt|ft|ffct|imt|agent|soat|oas|wt)-", _DOT, 16),
    ("GR1348941", _URL, 16),
    ("ATATT3", r"[A-Za-z0-9+/=_%\\-]", 40),
    ("ATCTT3", _B64, 40),
    ("ATBB", _WORD, 24),
    ("npm_", _WORD, 24),
    ("pypi-AgE", _URL, 30),
    ("rubygems_", _HEX, 32),
    ("dckr_[po]at_", _URL, 20),
    ("AKCp", _WORD, 40),
    ("sq[apu]_", _HEX, 32),
    ("bkua_", _HEX, 32),
    ("CCIPAT_", _URL, 30),
    ("CLOJARS_", _WORD, 30),
    ("oy2", "[a-z0-9]", 43),
    # Watching.
    ("gl(?:sa|c)_", _B64, 24),
    ("NRAK-", "[A-Z0-9]", 20),
    ("NRI[IQ]-", _URL, 24),
    ("NR(?:BR|JS)-", _HEX, 16),
    ("sntry[su]_", _B64, 24),
    ("ph[acrsx]_", _URL, 24),
    ("dd[pa]_", _WORD, 30),
    ("dt0[a-z][0-9]{2}[.][A-Z0-9]{24}[.]", "[A-Z0-9]", 60),
    ("HCP?I?K_", _WORD, 24),
    # Talk, mail and money.
    ("xox[abeoprs](?:[.]xox[bp])?-", _URL, 16),
    ("xapp-", _URL, 20),
    ("hooks[.]slack[.]com/(?:services|workflows|triggers)/", "[A-Za-z0-9+/]", 30),
    ("discord(?:app)?[.]com/api/(?:v[0-9]{1,2}/)?webhooks/[0-9]{8,20}/", _URL, 30),
    ("(?:webhook|outlook)[.]office(?:365)?[.]com/webhook(?:b2)?/", "[A-Za-z0-9@/-]", 60),
    ("SG[.][A-Za-z0-9_-]{16,32}[.]", _URL, 16),
    ("key-", _HEX, 32),
    ("xkeysib-", _URL, 30),
    ("xsmtpsib-", _URL, 30),
    ("SK", "[0-9a-fA-F]", 32),
    ("re_", "[A-Za-z0-9_]", 24),
    ("mlsn[.]", _HEX, 40),
    ("duffel_(?:live|test)_", _URL, 30),
    ("fio-u-", _URL, 40),
    ("s-s4t2(?:ud|af)-", _HEX, 40),
    ("cal_(?:live_)?", _HEX, 32),
    ("EAA[B-Z]", _WORD, 60),
    ("IGQV", _URL, 60),
    ("AAAA[A-Za-z0-9_-]{7}:APA91b", _URL, 60),
    ("(?:sdk|mob|api)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-", _HEX, 12),
    ("ls__", _HEX, 30),
    ("[srp]k_(?:live|test|prod)_", _WORD, 10),
    ("whsec_", _B64, 16),
    ("sq0[a-z]{3}-", _URL, 20),
    ("EAAA[A-Za-z]", _URL, 40),
    ("access_token[$](?:production|sandbox)[$]", "[a-z0-9$]", 30),
    ("shp(?:at|ss|ca|pa|tka)_", _WORD, 20),
    ("shippo_(?:live|test)_", _HEX, 30),
    ("EZ[AT]K", _WORD, 40),
    ("FLWSECK(?:_TEST)?-", _URL, 12),
    ("rzp_(?:live|test)_", _WORD, 14),
    # Offices and tools.
    ("lin_(?:api|oauth)_", _WORD, 20),
    ("ntn_", _WORD, 30),
    ("secret_", _WORD, 30),
    ("figd_", _URL, 20),
    ("pat[A-Za-z0-9]{14}[.]", _HEX, 40),
    ("PMAK-", "[0-9a-f-]", 30),
    ("PMAT-", "[0-9A-Z]", 24),
    ("sl[.](?:[bu][.])?[A-Za-z0-9_-]{8}", _URL, 60),
    ("tfp_", _DOT, 30),
    ("pnu_", _WORD, 30),
    ("p8e-", _WORD, 30),
    ("apify_api_", _WORD, 20),
    ("AAAAAAAAAAAAAAAAAAAA[A-Za-z0-9%]{4}", "[A-Za-z0-9%]", 40),
    ("rdme_", "[a-z0-9]", 40),
    ("ico-", _WORD, 32),
    ("gAAAAA", _B64, 60),
    ("sgp_", "[A-Za-z0-9_]", 32),
)
"""Prefix, character of the body, how many at least. Shorter than the documented length: newer tokens tend to differ."""


def _prefixed(prefix: str, body: str, least: int) -> Rule:
    trigger = f"(?:{prefix}){body}{{{min(least, TRIGGER_CHARS)}}}"
    return Rule("api_key", trigger, re.compile(rf"{EDGE}(?:{prefix}){body}{{{least},}}"), _has_variety)


def _has_variety(match: re.Match[str]) -> bool:
    """No token: a word or words, a file's name, one letter again and again."""
    text = match[0]
    if len(set(text)) < 8:
        return False
    return any(c.isdigit() for c in text) or (text.lower() != text and "-" not in text[8:])


def _form(trigger: str, pattern: str) -> Rule:
    return Rule("api_key", trigger, re.compile(pattern), _has_variety)


_FORMS: Final = (
    # fal: an id and a secret.
    _form("[0-9a-f]{4}-[0-9a-f]{12}:[0-9a-f]{8}", rf"{EDGE}{_UUID}:[0-9a-f]{{32,}}"),
    # Telegram, Discord bot, Mailchimp, Azure client secret.
    _form("[0-9]{8}:AA[A-Za-z0-9_-]{8}", rf"(?:{EDGE}|(?<=bot))[0-9]{{8,11}}:AA[A-Za-z0-9_-]{{30,}}"),
    _form(
        "[MNO][A-Za-z0-9_-]{22}[A-Za-z0-9_-]{0,4}[.][A-Za-z0-9_-]{6}[.][A-Za-z0-9_-]{8}",
        rf"{EDGE}[MNO][A-Za-z0-9_-]{{22,27}}\.[A-Za-z0-9_-]{{6}}\.[A-Za-z0-9_-]{{27,}}",
    ),
    _form("-[0-9a-f]{8}-", rf"{EDGE}[0-9a-f]{{32}}-[0-9a-f]{{8}}-[0-9a-f]{{8}}(?![0-9a-f-])"),
    _form("A3-[A-Z0-9]{6}-[A-Z0-9]{6}", rf"{EDGE}A3-[A-Z0-9]{{6}}-[A-Z0-9]{{6,11}}(?:-[A-Z0-9]{{5}}){{3,4}}"),
    _form("[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk", rf"{EDGE}[A-Za-z0-9]{{6}}_[A-Za-z0-9]{{29}}_mmk"),
    _form("[0-9a-f]{32}-us[0-9]", rf"{EDGE}[0-9a-f]{{32}}-us[0-9]{{1,2}}"),
    _form("[0-9]Q~[A-Za-z0-9_~.-]{8}", rf"{EDGE}[A-Za-z0-9_~.-]{{3}}[0-9]Q~[A-Za-z0-9_~.-]{{31,34}}"),
    # OpenAI's and Azure's marks within a key.
    _form("T3BlbkFJ", rf"{EDGE}[A-Za-z0-9_-]{{10,200}}T3BlbkFJ[A-Za-z0-9_-]{{10,}}"),
    _form("JQQJ99", rf"{EDGE}[A-Za-z0-9]{{20,80}}JQQJ99[A-Za-z0-9]{{10,}}={{0,2}}"),
    _form("[0-9a-f]{8}(?:FFFF)?NRAL", rf"{EDGE}[a-z0-9]{{32,40}}(?:FFFF)?NRAL"),
    _form("[0-9]{15}[|][A-Za-z0-9_-]{27}", rf"{EDGE}[0-9]{{15,16}}[|][A-Za-z0-9_-]{{27}}"),
)

_JWT: Final = rf"{EDGE}eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{4,}}(?:\.[A-Za-z0-9_-]*){{0,3}}"
_PEM: Final = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)"
)
_PUTTY: Final = r"PuTTY-User-Key-File-[\s\S]*"

TOKENS: Final[tuple[Rule, ...]] = (
    Rule("private_key", "-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", re.compile(_PEM)),
    Rule("private_key", "PuTTY-User-Key-File-", re.compile(_PUTTY)),
    Rule("jwt", r"eyJ[A-Za-z0-9_-]{8}", re.compile(_JWT)),
    *(_prefixed(*row) for row in _PREFIXED),
    *_FORMS,
)
