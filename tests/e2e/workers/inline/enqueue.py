import json
import os
import sys

import redis

db = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
db.rpush("renderbot", *(json.dumps(job) for job in json.load(open(sys.argv[1]))))
