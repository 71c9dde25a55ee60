import os
from contextlib import asynccontextmanager

from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await create_pool(RedisSettings.from_dsn(os.environ["REDIS_URL"]), default_queue_name="avatars")
    yield
    await app.state.pool.aclose()


app = FastAPI(lifespan=lifespan)


class Avatar(BaseModel):
    job_id: str
    user_id: str
    workflow: str
    seed: int
    text: str
    tier: str = "free"


@app.post("/avatars")
async def create_avatar(avatar: Avatar):
    job = await app.state.pool.enqueue_job(
        "generate_avatar",
        avatar.job_id,
        avatar.user_id,
        workflow=avatar.workflow,
        seed=avatar.seed,
        text=avatar.text,
        tier=avatar.tier,
        _job_id=f"arq-{avatar.job_id}",
    )
    return {"id": job.job_id}
