"""How much a job asks for, read from its message: images, seconds, characters, megapixels. Texts are only measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.reading.payload import Index, scalar

IMAGES_MAX: Final = 10_000
SECONDS_MAX: Final = 86_400.0
FRAMES_MAX: Final = 10_000_000.0
SIDE_MAX: Final = 100_000.0
"""Pixels of one side."""
LINES_MAX: Final = 2000
"""Lines of a script whose lengths are added."""
CHARACTERS_MAX: Final = 100_000_000

_IMAGES: Final = (
    "num_images",
    "numImages",
    "n_images",
    "image_count",
    "num_outputs",
    "images",
    "batch_size",
    "batchSize",
    "n",
)
_SECONDS: Final = (
    *(
        "video_seconds",
        "duration_seconds",
        "durationSeconds",
        "length_seconds",
        "video_length_seconds",
        "video_duration",
    ),
    *("duration_s", "duration", "video_length", "seconds"),
)
_MILLISECONDS: Final = ("duration_ms", "durationMs")
_AUDIO_SECONDS: Final = (
    "audio_seconds",
    "audio_duration",
    "audio_length",
    "audio_duration_seconds",
    "audio_length_seconds",
)
_FRAMES: Final = ("num_frames", "numFrames", "frame_count", "frames", "video_frames")
_RATE: Final = ("fps", "frame_rate", "frameRate", "framerate")
_TEXTS: Final = ("text", "script", "tts_text", "input_text", "voiceover_text", "voiceover", "narration", "transcript")
_COUNTS: Final = ("characters", "character_count", "num_characters", "char_count")
_SIZES: Final = ("size", "resolution", "image_size", "dimensions")
NAMES: Final = frozenset(
    {
        *_IMAGES,
        *_SECONDS,
        *_MILLISECONDS,
        *_AUDIO_SECONDS,
        *_FRAMES,
        *_RATE,
        *_TEXTS,
        *_COUNTS,
        *_SIZES,
        "width",
        "height",
    }
)
"""All that is looked for."""
_SOUND: Final = re.compile(r"audio|music|tts|voice|speech|song|sound|dub", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|sec|seconds)?", re.IGNORECASE)
_CLOCK: Final = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_BY: Final = re.compile(r"(\d{2,6})\s*[xX*]\s*(\d{2,6})")


def quantities(index: Index, kind: str = "") -> dict[str, AttributeValue]:
    """What the message asks for, by attribute; `kind` is the job's type, which tells sound from pictures."""
    found: dict[str, AttributeValue] = {}
    if index.found.keys().isdisjoint(NAMES):
        return found
    images = _first(index, _IMAGES, IMAGES_MAX)
    if images is not None and images == int(images):
        found[names.IMAGES] = int(images)
    seconds, sound = _seconds(index), _first(index, _AUDIO_SECONDS, SECONDS_MAX)
    if seconds is not None and sound is None and _SOUND.search(kind):
        seconds, sound = None, seconds
    if seconds is not None:
        found[names.VIDEO_SECONDS] = seconds
    if sound is not None:
        found[names.AUDIO_SECONDS] = sound
    characters = _characters(index)
    if characters:
        found[names.CHARACTERS] = characters
    pixels = _pixels(index)
    if pixels:
        found[names.MEGAPIXELS] = round(pixels * (images or 1 if seconds is None else 1) / 1e6, 6)
    return found


def amount(value: object, most: float) -> float | None:
    """A positive number up to a maximum, also if it is written as a text, or as `5s` or `00:05`."""
    plain = scalar(value)
    if isinstance(plain, bool) or plain is None:
        return None
    if isinstance(plain, str):
        match, clock = _DURATION.fullmatch(plain[:32]), _CLOCK.fullmatch(plain[:32])
        if match:
            plain = float(match[1])
        elif clock:
            plain = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
        else:
            return None
    return plain if 0 < plain <= most else None


def length(value: object) -> int | None:
    """Characters of a text, or of the lines of a list of texts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, bytes):
        return len(value.decode("utf-8", "replace"))
    if isinstance(value, list) and 0 < len(value) <= LINES_MAX and all(isinstance(each, str) for each in value):
        return sum(map(len, value))
    return None


def _first(index: Index, wanted: Iterable[str], most: float) -> float | None:
    known = index.found
    for name in wanted:
        if name not in known:
            continue
        for value in index.values(name):
            number = amount(value, most)
            if number is not None:
                return number
    return None


def _seconds(index: Index) -> float | None:
    seconds = _first(index, _SECONDS, SECONDS_MAX)
    if seconds is not None:
        return seconds
    milliseconds = _first(index, _MILLISECONDS, SECONDS_MAX * 1000)
    if milliseconds is not None:
        return milliseconds / 1000
    frames, rate = _first(index, _FRAMES, FRAMES_MAX), _first(index, _RATE, 1000)
    return round(frames / rate, 3) if frames and rate and frames > 1 else None


def _characters(index: Index) -> int | None:
    counted = _first(index, _COUNTS, CHARACTERS_MAX)
    if counted is not None:
        return int(counted)
    for name in _TEXTS:
        if name not in index.found:
            continue
        for value in index.raw(name):
            characters = length(value)
            if characters:
                return characters
    return None


def _pixels(index: Index) -> float | None:
    width, height = _first(index, ("width",), SIDE_MAX), _first(index, ("height",), SIDE_MAX)
    if width and height:
        return width * height
    for name in _SIZES:
        if name not in index.found:
            continue
        for value in index.values(name):
            size = scalar(value)
            match = _BY.fullmatch(size) if isinstance(size, str) else None
            if match and 16 <= int(match[1]) <= SIDE_MAX and 16 <= int(match[2]) <= SIDE_MAX:
                return int(match[1]) * int(match[2])
    return None
