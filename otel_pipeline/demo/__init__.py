"""A whole platform on one machine, without a GPU: `otel-pipeline demo` starts it, feeds it jobs, and shows traces
and the bill.

run.py           the story: start all, enqueue, wait, print, stop
environment.py   what the processes are given: ports, configurations, variables, commands
processes.py     children of the demo, each stopped by its own pid
worker.py        an ordinary video worker that knows nothing of telemetry
producer.py      the jobs, good and bad
comfyui.py       plays back recordings of a real ComfyUI server: scenarios.py picks one, playback.py puts this prompt's
                 id and times in, executor.py keeps the queue
tts.py           a text-to-speech API that sometimes fails
gpus.py          two simulated GPUs, whose samples come as an agent's
bill.py          what all of it cost, by the ledger; prices.yaml has the prices
redis_server.py  a Redis server, from PATH or from a wheel
loopback.py      free ports and aiohttp applications on 127.0.0.1
tree.py          draws traces from the gateway's file
"""
