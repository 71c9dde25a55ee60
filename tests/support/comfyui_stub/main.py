"""python main.py PORT: one thread runs the prompts, the main thread serves."""

import asyncio
import sys
import threading

import execution
import nodes  # noqa: F401  as there
import server
from aiohttp import web


def prompt_worker(queue, owner):
    executor = execution.PromptExecutor(owner)
    while True:
        item = queue.get()
        executor.execute(item[2], item[1], item[3], item[4])
        status = {"status_str": "success" if executor.success else "error", "completed": executor.success}
        queue.task_done(item, {**status, "messages": executor.status_messages})


def main():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    owner = server.PromptServer(loop)
    threading.Thread(target=prompt_worker, daemon=True, args=(owner.prompt_queue, owner)).start()
    web.run_app(owner.app, host="127.0.0.1", port=int(sys.argv[1]), loop=loop, print=None)


if __name__ == "__main__":
    main()
