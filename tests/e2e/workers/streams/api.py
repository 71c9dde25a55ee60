import json
import os
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from redis.asyncio import Redis


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"])
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/render", status_code=202)
async def render(body: dict[str, Any], request: Request):
    request_id = body.pop("request_id")
    entry_id = await request.app.state.redis.xadd(
        "render:requests",
        {"request_id": request_id, "userId": body.pop("userId"), "payload": json.dumps(body)},
        maxlen=10000,
        approximate=True,
    )
    return {"request_id": request_id, "entry": entry_id}
