"""A text-to-speech HTTP API in the shape of the common vendors: it beeps, counts characters, and sometimes fails.

python -m otel_pipeline.demo.tts --port 8190
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import math
import struct
import uuid
import wave
from typing import Final

from aiohttp import web

from otel_pipeline.demo.loopback import serve_forever

RATE_LIMITED: Final = "[[429]]"
BROKEN: Final = "[[500]]"
"""Markers: a text that contains one gets this answer."""

TEXT_CHARACTERS_MAX: Final = 5000
"""The usual limit of such an API for one request."""
SAMPLES_A_SECOND: Final = 8000
SECONDS_A_CHARACTER: Final = 0.06


def make_app(fail_every: int = 0, delay_s: float = 0.1) -> web.Application:
    """The API as an application. Every `fail_every`-th request gets 429 (0: none); an answer takes `delay_s`."""
    requests = itertools.count(1)

    async def speak(request: web.Request) -> web.Response:
        number = next(requests)
        text = _text(await request.read())
        await asyncio.sleep(delay_s)
        if text is None:
            return _problem(
                422, "invalid_request", f"`text` has to be a string of 1 to {TEXT_CHARACTERS_MAX} characters."
            )
        if RATE_LIMITED in text or (fail_every and number % fail_every == 0):
            return _problem(429, "too_many_concurrent_requests", "Too many concurrent requests.", {"Retry-After": "1"})
        if BROKEN in text:
            return _problem(500, "internal_error", "The voice could not be rendered.")
        headers = {"x-character-count": str(len(text)), "request-id": uuid.uuid4().hex}
        return web.Response(body=wav(len(text) * SECONDS_A_CHARACTER), content_type="audio/wav", headers=headers)

    app = web.Application()
    app.router.add_post("/v1/text-to-speech/{voice}", speak)
    return app


def wav(length_s: float, pitch_hz: float = 220.0) -> bytes:
    """A mono WAV file with one tone."""
    count = max(1, round(length_s * SAMPLES_A_SECOND))
    samples = (round(8000 * math.sin(2 * math.pi * pitch_hz * n / SAMPLES_A_SECOND)) for n in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(SAMPLES_A_SECOND)
        audio.writeframes(struct.pack(f"<{count}h", *samples))
    return file.getvalue()


def _text(body: bytes) -> str | None:
    try:
        text = json.loads(body)["text"]
    except (ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) and 0 < len(text) <= TEXT_CHARACTERS_MAX else None


def _problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"detail": {"status": code, "message": message}}, status=status, headers=headers)


def main() -> None:
    parser = argparse.ArgumentParser(description="A text-to-speech API that beeps, and sometimes fails.")
    parser.add_argument("--port", type=int, default=8190)
    parser.add_argument("--fail-every", type=int, default=0, help="each n-th request gets 429; 0: none")
    parser.add_argument("--delay-seconds", type=float, default=0.1)
    arguments = parser.parse_args()
    serve_forever(make_app(arguments.fail_every, arguments.delay_seconds), arguments.port)


if __name__ == "__main__":
    main()
