import json
import os
import sys

from redis import Redis
from rq import Queue

queue = Queue("clips", connection=Redis.from_url(os.environ["REDIS_URL"]))

for clip in json.load(open(sys.argv[1])):
    job = queue.enqueue("tasks.make_clip", job_timeout=120, result_ttl=3600, kwargs=clip)
    print(job.id, clip["job_id"])
