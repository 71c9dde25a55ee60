"""Texts around secrets, and texts that only look like them: what `secret_samples.py` fills in.

`{}` stands for the secret. The forms of the values are named: `secret_samples.py` makes them at run time.
"""

from __future__ import annotations

from typing import Final

CONTEXTS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    (
        "password",
        "command",
        "word",
        (
            "redis-cli -h cache -a {} ping",
            "mysql -uroot -p{} jobs",
            "sshpass -p {} ssh gpu7",
            "docker login -u bot -p {} hub",
            "mongosh --host m1 -u root -p '{}'",
            "curl -sS -ubot:{} https://api.example.com",
            "openssl rsa -passin pass:{} -in key",
            "rabbitmqctl change_password guest {}",
            "args: ['--api-key', '{}', '--port', '80']",
        ),
    ),
    (
        "password",
        "statement",
        "word",
        (
            "CREATE USER app IDENTIFIED BY '{}'",
            "CREATE LOGIN app WITH PASSWORD = N'{}'",
            "SET PASSWORD FOR 'app'@'%' = PASSWORD('{}')",
            "AUTH {}",
            "HELLO 3 AUTH default {}",
            "CONFIG SET requirepass {}",
        ),
    ),
    (
        "password",
        "pair",
        "word",
        (
            '{"name": "DB_PASSWORD", "value": "{}"}',
            "- name: API_TOKEN\n  value: {}",
            '<add key="ApiSecret" value="{}"/>',
            "<password>{}</password>",
            "<wsse:Password Type='text'>{}</wsse:Password>",
            "<secret_key><![CDATA[{}]]></secret_key>",
            "password: |\n  {}",
            "password[]={}",
            "map[password:{} user:joe]",
        ),
    ),
    (
        "password",
        "escaped",
        "word",
        (
            "%7B%22password%22%3A%22{}%22%7D",
            "&quot;password&quot;:&quot;{}&quot;",
            '{\\\\\\"apiKey\\\\\\":\\\\\\"{}\\\\\\"}',
            "b'password': b'{}'",
        ),
    ),
    (
        "password",
        "code",
        "word",
        (
            'System.setProperty("API_TOKEN", "{}")',
            'var password string = "{}"',
            "API_TOKEN ?= {}",
            'if (apikey == "{}") {',
            "Config(host='db', password='{}', port=5432)",
        ),
    ),
    (
        "password",
        "name",
        "token",
        (
            "mySecretString={}",
            "some_api_token_123 = {}",
            "slackToken := `{}`",
            "admin_pw = {}",
            "X3_PSWD={}",
            "x-functions-key: {}",
            "SECRET_KEY_BASE={}",
            "code_verifier={}",
            "OTEL_EXPORTER_OTLP_HEADERS=x-honeycomb-team={}",
        ),
    ),
    (
        "password",
        "abroad",
        "word",
        ("Passwort: {}", "mot de passe : {}", "contrase\u00f1a: {}", "\u5bc6\u7801\uff1a{}", "senha={}"),
    ),
    ("password", "sentence", "word", ("password was changed to {}", "{} is the password", "password for joe is {}")),
    (
        "authorization",
        "signature",
        "hex",
        (
            "X-Hub-Signature-256: sha256={}",
            "Stripe-Signature: t=1700000000,v1={}",
            '[("authorization", "Bearer {}"), ("accept", "*/*")]',
        ),
    ),
    (
        "url_credentials",
        "driver",
        "word",
        ("jdbc:oracle:thin:scott/{}@//db:1521/orcl", "root:{}@tcp(db:3306)/app", "socks5h://:{}@proxy:1080"),
    ),
    ("url_signature", "media", "hex", ("https://media.example.com/a.png?ex=6612&is=66&hm={}&",)),
    (
        "one_time_code",
        "abroad",
        "code",
        (
            "Ihr Best\u00e4tigungscode lautet {}",
            "Votre code de v\u00e9rification est {}",
            "Tu c\u00f3digo de verificaci\u00f3n es {}",
            "\u041a\u043e\u0434 \u043f\u043e\u0434\u0442\u0432\u0435\u0440\u0436\u0434\u0435\u043d\u0438\u044f: {}",
            "\u60a8\u7684\u9a8c\u8bc1\u7801\u662f{}",
            "\u8a8d\u8a3c\u30b3\u30fc\u30c9: {}",
            "Dein Code lautet {}",
        ),
    ),
    (
        "one_time_code",
        "phrase",
        "code",
        (
            "TOTP token {} rejected",
            "Code: {}. Do not share it with anyone.",
            "Enter this code to verify your account: {}",
            "{} is your one-time passcode",
            '{"code":"{}","type":"totp"}',
        ),
    ),
)
"""Kind, name, form of the value, texts."""

_TEXTS: Final = """
    Authorization: Bearer ***
    Authorization: Bearer ${TOKEN}
    Authorization: Bearer <your key>
    api_key=os.environ["OPENAI_API_KEY"]
    OPENAI_API_KEY=your-api-key-here
    x-api-key: YOUR_API_KEY
    password: {{ .Values.db.password }}
    connect(host=host, password=password)
    apiKey: config.apiKey
    token = get_token()
    password: Optional[str] = None
    password: too short
    password=[FILTERED]
    password=N/A
    password: (hidden)
    client_secret=%s
    UPDATE users SET password = $2 WHERE id = $1
    UPDATE t SET password=:password WHERE id=:id
    SELECT password FROM users WHERE token_hash = ?
    Incorrect API key provided: sk-****************abcd
    Failed password for invalid user postgres1 from 10.0.0.5
    WRONGPASS invalid username-password pair or user is disabled.
    WWW-Authenticate: Bearer realm="api", error="invalid_token"
    Bad activity token: android.os.BinderProxy@2bd79ce
    termination for sessionid: 0x14ed93111f20046
    secret_name=render-db
    secretName: tls-cert
    access_token_url=https://id.example.com/oauth/token
    credentialsId: 'ff083f76-7804-4ef1-80e4-fe975bb9141b'
    public_key = "9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit"
    "next-auth": "^5.0.0-beta.30"
    io.jsonwebtoken:jjwt-jackson-0.11.2
    GITHUB_API_KEY=
    next_page_token=Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB
    routing_key=gpu.h100.high
    ?cache_key=68a24df2f4ae7ebfc66f2ee5756c30b7&x=1
    object key: outputs/2026/03/01/img_0001.png
    cookie: lang=en
    Set-Cookie: theme=dark; Path=/
    https://REDACTED:REDACTED@www.example.com/
    https://user.example.org/path
    amqp://guest@rabbit:5672//
    -u 1000:1000
    docker run --user 1000:1000 -p 8080:80 img
    mysql -u root -p jobs
    ssh -p 2222 host
    nvidia-smi -a
    redis-cli -h cache ping
    curl -u admin https://x.example
    300-400-5000
    100.200.3000
    1.234.567.8901
    512-512-4096
    latency p50 120.500.9000
    steps 20-30-4000
    081111 004657 17337 INFO
    blk_-4658551441818960395
    i64 -4658551441818960395
    noise_seed=156680208700286
    1.000.000.000
    frame=  120 fps= 24 q=28.0 size=    1024kB time=00:00:05.00 bitrate=1677.7kbits/s
    code: 404123
    error_code=110001
    error code: 504213
    order 493021 is ready
    a bank vault with code 1984 graffiti
    promo code SUMMER2026
    use 512512 as the patch count
    lock key render:lock:d1947681b1d5c08e
    redis key celery-task-meta-9300b26b-d3b5-4512-85a1-7abca3e3f0d4
    signature style of the painter
    sign: a wooden sign saying hello world
    a bearer carrying tokens through a secret passage, basic colors
    trigger_token=ohwx
    special token </s> added
    job:token:count
    celery@render-7d9f
    deploy@host:/srv/out
    @types/node@20.11.5
    precision@k
    """
LOOK_ALIKES: Final = tuple(line.strip() for line in _TEXTS.strip().split("\n"))
