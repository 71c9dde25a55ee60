"""What the worker side costs: python -m tests.benchmarks.worker [--quick].

The same things are done in processes of three kinds, in turn: plain, with the official instrumentations, and with
those and this package. Figures are medians over the rounds, of the CPU time of the whole process for one operation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from aiohttp import web

from otel_pipeline.demo import comfyui
from otel_pipeline.demo.loopback import serving
from otel_pipeline.demo.redis_server import redis_server
from tests.benchmarks.process import Child
from tests.benchmarks.report import Session

MODES: Final = ("plain", "official", "ours")
RESULTS: Final = Path(__file__).parent / "results"
CHILD_S_MAX: Final = 120.0
PROGRESS: Final = json.dumps(
    {
        "type": "progress",
        "data": {"value": 3, "max": 20, "prompt_id": "3e3920d2-6c40-47db-8e43-1102cdb6d7b6", "node": "3"},
    }
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of operations")
    parser.add_argument("--quick", action="store_true", help="two rounds of a fifth, nothing is written")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.scale = 2, 0.2
    session = Session.now(
        command="python -m tests.benchmarks.worker " + " ".join(sys.argv[1:]),
        options=vars(options),
        variant="worker",
        notes={},
    )
    runs = measure(options.rounds, options.scale)
    text = render(session, runs)
    print(text)
    if not options.quick:
        print(*write(session, runs, text))


def measure(rounds: int, scale: float) -> dict[str, list[dict[str, Any]]]:
    """The answers of the processes, by mode; the modes take turns, so that a slow minute hits all."""
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with redis_server() as redis_url, stand_in() as comfyui_url, tempfile.TemporaryDirectory() as folder:
        given = json.dumps({"redis": redis_url, "comfyui": comfyui_url, "scale": scale})
        for _ in range(rounds):
            for mode in MODES:
                command = [sys.executable, "-m", "tests.benchmarks.worker_load", mode, given]
                with Child(command, Path(folder) / f"{mode}.log", talks=True) as child:
                    runs[mode].append(child.line(CHILD_S_MAX))
    return runs


@contextmanager
def stand_in() -> Iterator[str]:
    """ComfyUI, played back in a thread of this process, with a socket that floods."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    url: list[str] = []

    async def flood(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for _ in range(int(request.query["count"])):
            await socket.send_str(PROGRESS)
        await socket.close()
        return socket

    async def serve() -> None:
        app = comfyui.make_app(speed=20.0, run_s_min=0.0)
        app.router.add_get("/flood", flood)
        async with serving(app) as address:
            url.append(address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def table(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians by operation and mode."""
    operations = list(runs["plain"][0]["cpu_us"])
    return [
        {"operation": name} | {mode: median(run["cpu_us"][name] for run in runs[mode]) for mode in MODES}
        for name in operations
    ]


def render(session: Session, runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "# The worker side",
        "",
        f"- command: `{session.command}`",
        f"- date: {session.date}, commit {session.commit}",
        f"- machine: {session.cpu}, {session.cores} cores, load average before the start {session.load_average}",
        f"- Python {session.python}",
        "",
        "CPU time of the worker's process for one operation, medians, in microseconds; batching and encoding of spans",
        "and log records are in it, sending is not. A ComfyUI prompt is POST /prompt, five GET /history and GET /view.",
        "",
        "| operation | plain | official | ours | added by official | added by ours | ours / official | ours / plain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table(runs):
        plain, official, ours = (row[mode] for mode in MODES)
        lines.append(
            f"| {row['operation']} | {plain:.1f} | {official:.1f} | {ours:.1f} | {official - plain:.1f}"
            f" | {ours - official:.1f} | {ours / official:.2f} | {ours / plain:.2f} |"
        )
    lines += ["", "| for one job | official | ours |", "|---|---|---|"]
    for what in ("spans", "traces"):
        official, ours = (median(run["jobs"][what] for run in runs[mode]) for mode in ("official", "ours"))
        lines.append(f"| {what} | {official:g} | {ours:g} |")
    return "\n".join(lines) + "\n"


def write(session: Session, runs: dict[str, list[dict[str, Any]]], text: str) -> tuple[Path, Path]:
    stem = "worker-" + session.date[:16].replace(" ", "-").replace(":", "") + "-" + session.commit
    markdown, data = RESULTS / f"{stem}.md", RESULTS / f"{stem}.json"
    markdown.write_text(text)
    data.write_text(json.dumps({"session": asdict(session), "rows": table(runs), "runs": runs}, indent=1) + "\n")
    return markdown, data


if __name__ == "__main__":
    main()
