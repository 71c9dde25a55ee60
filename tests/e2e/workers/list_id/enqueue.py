"""Puts jobs from a file into the queue (cron)."""

import json
import os
import sys
import time

import redis

r = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))

with open(sys.argv[1]) as f:
    for job in json.load(f):
        r.hset(f"orchestrator:job:{job['id']}", mapping={**job, "status": "queued", "created_at": time.time()})
        r.lpush("orchestrator:queue", job["id"])
        print("queued", job["id"])
