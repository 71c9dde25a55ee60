"""Queues generation tasks: python enqueue.py tasks.json"""

import json
import os
import sys

import redis

PRIORITIES = {"pro": 1, "free": 10}


def main():
    r = redis.Redis.from_url(os.environ["REDIS_URL"])
    for task in json.load(open(sys.argv[1])):
        task_id = task["task_id"]
        priority = PRIORITIES[task["tier"]]
        pipe = r.pipeline()
        pipe.hset(f"gen:task:{task_id}", mapping={**task, "priority": priority, "progress": 0})
        pipe.zadd("gen:pending", {task_id: priority})
        pipe.execute()
        print(task_id)


if __name__ == "__main__":
    main()
