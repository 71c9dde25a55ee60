"""A whole platform on one machine, without a GPU: `otel-pipeline demo` starts it, feeds it jobs and shows the traces.

run.py           the story: start all, enqueue, wait, print, stop
processes.py     children of the demo, each stopped by its own pid
worker.py        an ordinary video worker that knows nothing of telemetry
producer.py      the jobs, good and bad
comfyui.py       plays back recordings of a real ComfyUI server: scenarios.py picks one, playback.py puts this prompt's
                 id and times in, executor.py keeps the queue
tts.py           a text-to-speech API that sometimes fails
redis_server.py  a Redis server, from PATH or from a wheel
loopback.py      free ports and aiohttp applications on 127.0.0.1
tree.py          draws traces from the gateway's file
"""
