"""Secrets and look-alikes, synthesised after the formats that their makers document. None is live: all are random.

Tokens are put together at run time, so that no scanner of repositories takes this file for a leak.
"""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from dataclasses import dataclass
from typing import Final

from tests.support.secret_contexts import CONTEXTS, LOOK_ALIKES

UPPER: Final = string.ascii_uppercase
ALNUM: Final = string.ascii_letters + string.digits
URL: Final = ALNUM + "-_"
HEX: Final = "0123456789abcdef"
CAPS: Final = UPPER + string.digits


@dataclass(frozen=True, slots=True)
class Sample:
    """A text, and the secret in it, or "" for a look-alike, which must come out as it is."""

    id: str
    kind: str
    text: str
    secret: str


class Dice:
    """Random texts from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def of(self, alphabet: str, count: int) -> str:
        """So many characters; the first two are a letter and a digit where the alphabet has both."""
        return "".join(self.random.choice(alphabet) for _ in range(count))

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def hex(self, count: int) -> str:
        return self.of(HEX, count)

    def digits(self, count: int) -> str:
        return self.of(string.digits, count)

    def card(self, prefix: str, length: int) -> str:
        """A number with a valid check digit."""
        body = prefix + self.digits(length - len(prefix) - 1)
        for check in string.digits:
            digits = [int(c) for c in reversed(body + check)]
            if sum(d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)) % 10 == 0:
                return body + check
        raise AssertionError

    def jwt(self) -> str:
        """A signed one, of three parts."""
        head, body = ({"alg": "HS256", "typ": "JWT"}, {"sub": self.digits(10), "iat": 1516239022})
        return ".".join([*(_b64url(json.dumps(part).encode()) for part in (head, body)), self.of(URL, 43)])


def _b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


TOKENS: Final[tuple[tuple[str, str, str, int], ...]] = (
    ("aws-key-id", "AK" + "IA", CAPS, 16),
    ("aws-session-id", "AS" + "IA", CAPS, 16),
    ("google-api", "AI" + "za", URL, 35),
    ("google-oauth", "ya" + "29.", URL, 60),
    ("google-client", "GOC" + "SPX-", URL, 28),
    ("openai", "s" + "k-", ALNUM, 48),
    ("openai-project", "s" + "k-proj-", URL, 100),
    ("openai-service", "s" + "k-svcacct-", URL, 100),
    ("anthropic", "s" + "k-ant-api03-", URL, 95),
    ("openrouter", "s" + "k-or-v1-", HEX, 64),
    ("stability", "s" + "k-", ALNUM, 48),
    ("elevenlabs", "s" + "k_", HEX, 48),
    ("huggingface", "h" + "f_", string.ascii_letters, 34),
    ("replicate", "r" + "8_", ALNUM, 37),
    ("runpod", "r" + "pa_", CAPS, 44),
    ("groq", "gs" + "k_", ALNUM, 52),
    ("xai", "xa" + "i-", ALNUM, 80),
    ("perplexity", "ppl" + "x-", ALNUM, 48),
    ("nvidia", "nva" + "pi-", URL, 64),
    ("fireworks", "f" + "w_", ALNUM, 24),
    ("github", "gh" + "p_", ALNUM, 36),
    ("github-oauth", "gh" + "o_", ALNUM, 36),
    ("github-server", "gh" + "s_", ALNUM, 36),
    ("github-fine", "github" + "_pat_", ALNUM + "_", 82),
    ("gitlab", "gl" + "pat-", URL, 20),
    ("npm", "np" + "m_", ALNUM, 36),
    ("pypi", "py" + "pi-AgEIcHlwaS5vcmc", URL, 150),
    ("docker", "dckr" + "_pat_", URL, 27),
    ("rubygems", "ruby" + "gems_", HEX, 48),
    ("slack-bot", "xo" + "xb-", string.digits + ALNUM, 50),
    ("slack-app", "xap" + "p-1-", CAPS, 60),
    ("stripe", "s" + "k_live_", ALNUM, 24),
    ("stripe-restricted", "r" + "k_live_", ALNUM, 24),
    ("stripe-hook", "whs" + "ec_", ALNUM, 32),
    ("digitalocean", "do" + "p_v1_", HEX, 64),
    ("shopify", "shp" + "at_", HEX, 32),
    ("linear", "lin" + "_api_", ALNUM, 40),
    ("grafana", "gls" + "a_", ALNUM, 41),
    ("newrelic", "NR" + "AK-", CAPS, 27),
    ("sentry", "sntr" + "ys_", ALNUM, 60),
    ("databricks", "da" + "pi", HEX, 32),
    ("vault", "hv" + "s.", ALNUM, 90),
    ("doppler", "dp" + ".pt.", ALNUM, 43),
    ("postman", "PM" + "AK-", HEX, 59),
    ("figma", "fig" + "d_", URL, 40),
    ("supabase", "sb" + "p_", HEX, 40),
    ("planetscale", "pscale" + "_tkn_", ALNUM, 43),
    ("alibaba", "LT" + "AI", ALNUM, 20),
    ("sendinblue", "xkey" + "sib-", HEX, 64),
    ("mailgun", "ke" + "y-", HEX, 32),
)
"""Name, prefix, alphabet and count of what follows."""
TOKEN_PLACES: Final = (
    "{}",
    "calling provider with key {} failed",
    "https://api.example.com/v1/predict?key={}&alt=json",
    '{{"model": "flux-1-dev", "credentials": "{}"}}',
    "Authorization: Bearer {}",
    "export API_KEY={}",
    "https://{}@git.example.com/team/repo.git",
)


def secrets(seed: int = 4) -> list[Sample]:
    """At least one of each form of each kind."""
    dice = Dice(seed)
    samples = []
    for index, (name, prefix, alphabet, count) in enumerate(TOKENS):
        token = prefix + dice.of(alphabet, count - 2) + ("7b" if alphabet == HEX else "7K" if "7" in alphabet else "qK")
        places = (TOKEN_PLACES[0], TOKEN_PLACES[1 + index % (len(TOKEN_PLACES) - 1)])
        samples += [("api_key", name, place.format(token), token) for place in places]
    samples += [("jwt", "jwt", place, token) for token in [dice.jwt()] for place in (token, f"id_token={token}&x=1")]
    for maker in (_providers, _headers, _urls, _assignments, _personal, _contexts):
        samples += maker(dice)
    return [Sample(f"{kind}-{name}-{n}", kind, text, secret) for n, (kind, name, text, secret) in enumerate(samples)]


Row = tuple[str, str, str, str]


def _rows(kind: str, name: str, secret: str, *texts: str) -> list[Row]:
    return [(kind, name, text.replace("{}", secret), secret) for text in texts]


def _providers(dice: Dice) -> list[Row]:
    pem = "-----BEGIN " + "RSA PRIVATE KEY-----\n" + dice.of(ALNUM, 64) + "\n" + dice.of(ALNUM, 64)
    telegram = dice.digits(9) + "1:AA" + dice.of(URL, 33)
    slack = "hooks.sla" + f"ck.com/services/T{dice.of(CAPS, 8)}/B{dice.of(CAPS, 8)}/{dice.of(ALNUM, 24)}"
    discord = "discord.com/api/web" + f"hooks/{dice.digits(18)}/{dice.of(URL, 68)}"
    sendgrid = "S" + f"G.{dice.of(URL, 22)}.{dice.of(URL, 43)}"
    fal = f"{dice.uuid()}:{dice.hex(32)}"
    return [
        ("private_key", "pem", f"loading {pem}\n-----END RSA PRIVATE KEY-----\nfailed", pem),
        ("private_key", "pem-cut", f"could not parse {pem}", pem),
        *_rows("api_key", "fal", fal, "Authorization: Key {}", "fal client with {} refused"),
        *_rows("api_key", "telegram", telegram, "https://api.telegram.org/bot{}/sendVideo", "bot {} blocked"),
        *_rows("api_key", "slack-hook", slack, "POST https://{} 404"),
        *_rows("api_key", "discord-hook", discord, "POST https://{} 429"),
        *_rows("api_key", "sendgrid", sendgrid, "mail client {}", "key={}"),
    ]


def _headers(dice: Dice) -> list[Row]:
    opaque = dice.of(ALNUM, 38) + "x9"
    basic = base64.b64encode(f"user:{dice.of(ALNUM, 12)}".encode()).decode()
    session = dice.of(ALNUM, 30) + "z1"
    key = dice.hex(32)
    return [
        *_rows("authorization", "bearer", opaque, "Authorization: Bearer {}", "{'Authorization': 'Bearer {}'}"),
        *_rows("authorization", "bearer-bare", opaque, "sent bearer {} to host", '"authorization":"Bearer {}"'),
        *_rows("authorization", "basic", basic, "Authorization: Basic {}", "authorization=Basic {}"),
        *_rows("authorization", "token", key, "Authorization: Token {}", "Proxy-Authorization: Basic {}"),
        *_rows("cookie", "cookie", session, "Cookie: theme=dark; sid={}; x=1", "Set-Cookie: s={}; Path=/; HttpOnly"),
        *_rows("cookie", "cookie-dict", session, "{'Cookie': 'sessionid={}'}", "JSESSIONID={}"),
        *_rows("password", "header", key, "x-api-key: {}", "xi-api-key: {}", "X-Auth-Token: {}", '"api-key": "{}"'),
        *_rows("password", "bfl", dice.uuid(), "x-key: {}", "headers={'x-key': '{}'}"),
    ]


def _urls(dice: Dice) -> list[Row]:
    password = dice.of(ALNUM, 14) + "4a"
    signature = dice.hex(64)
    azure = base64.b64encode(dice.of(ALNUM, 32).encode()).decode().replace("=", "%3D")
    sentry = dice.hex(32)
    opaque = dice.of(ALNUM, 40)
    s3 = "https://bucket.s3.amazonaws.com/out/1.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20240101T000000Z"
    return [
        *_rows("url_credentials", "postgres", password, "postgresql://app:{}@db:5432/jobs", "redis://:{}@cache:6379/0"),
        *_rows("url_credentials", "mongo", password, "mongodb+srv://app:{}@c0.example.net/?w=1", "amqp://u:{}@mq/v"),
        *_rows(
            "url_credentials", "http", password, "https://joe:{}@files.example.com/a", "proxy http://p:{}@10.0.0.1:3128"
        ),
        *_rows(
            "url_credentials", "sentry", sentry, "https://{}@o12345.ingest.sentry.io/67", "dsn https://{}@sentry.io/1"
        ),
        *_rows("url_signature", "s3", signature, s3 + "&X-Amz-Signature={}", s3 + "&X-Amz-Signature={}&x=1"),
        *_rows("url_signature", "s3-token", opaque, s3 + "&X-Amz-Security-Token={}"),
        *_rows("url_signature", "gcs", signature, "https://storage.googleapis.com/b/o?X-Goog-Signature={}"),
        *_rows(
            "url_signature", "azure", azure, "https://a.blob.core.windows.net/c/b?sv=2022-11-02&se=2024-01-01&sig={}"
        ),
        *_rows(
            "url_signature", "cloudfront", opaque, "https://d1.cloudfront.net/v.mp4?Expires=1700000000&Signature={}"
        ),
        *_rows("url_signature", "token", opaque, "wss://x.example.com/ws?token={}", "/cb?access_token={}&state=1"),
        *_rows(
            "url_signature", "code", dice.of(ALNUM, 40) + "5b", "https://app.example.com/callback?code={}&state=abc"
        ),
    ]


def _assignments(dice: Dice) -> list[Row]:
    password = dice.of(ALNUM, 10) + "!4"
    key = dice.of(ALNUM, 40)
    account = base64.b64encode(dice.of(ALNUM, 64).encode()).decode()
    sql = "Server=tcp:db.example.com;Database=jobs;User Id=sa;Password={};Encrypt=true"
    return [
        *_rows("password", "plain", password, "password={}", "DB_PASSWORD={}", "passwd: {}", "pwd = '{}'"),
        *_rows("password", "json", password, '{"user": "joe", "password": "{}"}', '{\\"password\\": \\"{}\\"}'),
        *_rows("password", "spoken", password, "my password is {}", "login failed with password '{}' for joe"),
        *_rows("password", "client", key, "client_secret={}", "clientSecret: {}", "aws_secret_access_key = {}"),
        *_rows("password", "env", key, "RUNPOD_API_KEY={}", "REPLICATE_API_TOKEN={}", "HF_TOKEN={}", "api_key='{}'"),
        *_rows("password", "flag", password, "worker --password {} --gpu 0", "curl -u joe:{} https://x.example.com"),
        *_rows("connection_string", "sql", password, sql),
        *_rows("connection_string", "dsn", password, "host=db dbname=jobs user=app password={}"),
        *_rows("connection_string", "azure", account, "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}"),
        *_rows("connection_string", "bus", account, "Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey={}"),
    ]


def _personal(dice: Dice) -> list[Row]:
    visa, master, amex = dice.card("4", 16), dice.card("53", 16), dice.card("37", 15)
    spaced = " ".join(visa[i : i + 4] for i in range(0, 16, 4))
    dashed = "-".join(master[i : i + 4] for i in range(0, 16, 4))
    amex_spaced = f"{amex[:4]} {amex[4:10]} {amex[10:]}"
    code = "48" + dice.digits(4)
    rows = [
        *_rows("email", "email", "joe.doe+gpu@mail.example.com", "{}", "mail to {} bounced", "user={}&x=1", "<{}>"),
        *_rows("email", "email-url", "joe%40example.com", "https://app.example.com/u?mail={}"),
        *_rows("card", "card", visa, "{}", "card={}", "charge of {} declined"),
        *_rows("card", "card-spaced", spaced, "card {} declined"),
        *_rows("card", "card-dashed", dashed, "pan: {}"),
        *_rows("card", "amex", amex, "paid with {}."),
        *_rows("card", "amex-spaced", amex_spaced, "paid with {}"),
        *_rows("one_time_code", "code", code, "Your verification code is {}", "{} is your login code", "OTP: {}"),
        *_rows(
            "one_time_code", "code-key", code, "otp={}", '{"otp": "{}"}', "use the code {} to sign in", "2FA code: {}"
        ),
    ]
    for number in ("+49 170 1234567", "+1 (555) 123-4567", "+14155552671", "(555) 123-4567", "555-123-4567"):
        rows += _rows("phone", "phone", number, "call {}", "phone: {}")
    for number in (
        "+44 20 7946 0958",
        "0170/1234567",
        "030 12345678",
        "06 12 34 56 78",
        "07700 900123",
        "+33 6 12 34 56 78",
    ):
        rows += _rows("phone", "phone", number, "to {} sent")
    return rows


def _contexts(dice: Dice) -> list[Row]:
    card = dice.card("62", 16)
    dotted = ".".join(card[i : i + 4] for i in range(0, 16, 4))
    rows = _rows("card", "card-dotted", dotted, "number {} ok")
    for kind, name, form, texts in CONTEXTS:
        for text in texts:
            rows += _rows(kind, name, _value(dice, form), text)
    return rows


def _value(dice: Dice, form: str) -> str:
    """A secret of a named form."""
    if form == "code":
        return "48" + dice.digits(4)
    return dice.hex(64) if form == "hex" else dice.of(ALNUM, 9) + "4k" if form == "word" else dice.of(ALNUM, 30) + "7b"


def look_alikes(seed: int = 4) -> list[Sample]:
    """What must stay as it is."""
    dice = Dice(seed)
    image = base64.b64encode(bytes(dice.random.getrandbits(8) for _ in range(240))).decode()
    texts = [
        *LOOK_ALIKES,
        *(dice.uuid() for _ in range(6)),
        *(dice.hex(count) for count in (8, 16, 32, 32, 40, 64, 64, 128)),
        *(f"{name}_{dice.hex(8)}.safetensors" for name in ("sdxl", "flux1-dev", "wan2.1_t2v_14B")),
        f"sha256:{dice.hex(64)}",
        f"model hash {dice.hex(64)}",
        f"00-{dice.hex(32)}-{dice.hex(16)}-01",
        f"trace_id={dice.hex(32)} span_id={dice.hex(16)}",
        f"data:image/png;base64,{image}",
        image,
        "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD",
        f"https://cdn.example.com/out/{dice.uuid()}.png",
        f"https://api.example.com/v1/jobs/{dice.hex(24)}?limit=100&offset=200",
        f"s3://bucket/outputs/2024/05/01/{dice.hex(16)}/frame_00012.png",
        f"Idempotency-Key: {dice.uuid()}",
        f"cache_key={dice.hex(40)}",
        f"etag: \"{dice.hex(32)}\"",
        f"GPU-{dice.uuid()}",
        f"prompt_id {dice.uuid()} executed in 12.53 seconds",
        f"seed={dice.random.getrandbits(63)}",
        f"seed: {dice.random.getrandbits(50)}",
        f"container {dice.hex(12)} started",
        f"git commit {dice.hex(40)}",
        f"ComfyUI_{dice.digits(5)}_.png",
        "1700000000", "1700000000000", "1700000000123456789", "20240115T102233Z", "2024-01-15 10:22:33.123456",
        "2024-01-15T10:22:33+00:00", "15.01.2024", "01/15/2024 10:22", "10:22:33", "Mon, 15 Jan 2024 10:22:33 GMT",
        "1920x1080", "1024 x 1024", "768-1344", "0001-0120", "24 fps, 121 frames, 5.04 s", "3.14159265358979",
        "6.02e+23",
        "1,234,567,890", "192.168.100.200", "10.0.0.12:8188", "2001:db8::8a2e:370:7334", "version 12.4.127",
        "550.54.15",
        "ISBN 978-3-16-148410-0", "order 1234567890123456", "invoice 4111111111111112", "9999 9999 9999 9999",
        "CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 23.69 GiB total capacity; 21.02 GiB already allocated)",
        "a photo of a secret garden, password written on a wall, cinematic",
        "close-up portrait of a woman, phone in hand, 85mm, f/1.4, 8k",
        "robot holding a token coin, key light, 35mm, iso 400",
        "the key to the city, bearer of light, basic geometric shapes",
        "a cookie jar: chocolate cookies, warm light",
        "code review on a screen, pin up poster, 1980s style",
        "max_tokens=77", "gen_ai.usage.input_tokens: 5123", "token count: 512 of 4096",
        "tokenizer: clip-vit-large-patch14",
        "eos_token_id=49407", "token_type=bearer", "expires_in: 3600", "Bearer token missing",
        "Bearer authentication required",
        "password is required", "invalid password for user joe", "missing api_key", "API key not set", "secret: null",
        "password=***", "Authorization header missing", "authorization: required", "password: [redacted:password]",
        "api_key=${API_KEY}", "token: <none>", "auth failed: 401", "cookie policy accepted", "session expired",
        "git@github.com:team/repo.git", "icon@2x.png", "image@sha256", "@decorator", "react@18.2.0", "user@localhost",
        "ssh://git@github.com/team/repo.git", "redis://cache:6379/0", "postgresql://db:5432/jobs",
        "https://example.com:8443/a",
        "sk-learn 1.4", "task-queue-worker-with-a-long-name-01", "risk-assessment-model-v2-final-checkpoint",
        "hf_hub_download failed", "fal_client.submit", "r8_unorm texture", "key-value-store", "KSampler (Advanced)",
        "status code 503", "exit code: 1370", "error code 10061", "http.response.status_code=200", "code: 4042",
        "pin_memory=True", "opt-in", "port 8188", "step 20/50 [00:12<00:18, 1.65it/s]", "batch 1234567", "pid 20240115",
        "NVIDIA H100 80GB HBM3", "cu128", "torch==2.7.1+cu128", "float8_e4m3fn", "lora:detail_tweaker:0.75",
        "checkpoint v1-5-pruned-emaonly-fp16.safetensors", "9f86d081-884c7d65", "A100-SXM4-80GB", "us-east-1a",
        "i-0abcd1234efgh5678",
        "/usr/lib/python3.11/site-packages/torch/nn/modules/module.py", "line 1518, in _wrapped_call_impl",
        "https://example.com/watch?v=dQw4w9WgXcQ&t=42s", "https://example.com/search?q=secret+garden&page=2",
    ]  # fmt: skip
    return [Sample(f"keep-{n}", "keep", text, "") for n, text in enumerate(texts)]
