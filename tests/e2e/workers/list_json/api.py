import json
import os
import time
import uuid

import redis
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI(title="image api")
r = redis.from_url(os.getenv("REDIS_URL", "redis://localhost:6379/0"), decode_responses=True)


class ImageRequest(BaseModel):
    user_id: str
    tier: str = "free"
    workflow_name: str
    model: str = "sdxl"
    seed: int = 0
    prompt: str = ""
    idempotency_key: str | None = None


@app.post("/jobs")
def create_job(req: ImageRequest):
    job_id = req.idempotency_key or str(uuid.uuid4())
    job = {
        "job_id": job_id,
        "user_id": req.user_id,
        "tier": req.tier,
        "workflow_name": req.workflow_name,
        "model": req.model,
        "seed": req.seed,
        "prompt": req.prompt,
        "created_at": time.time(),
    }
    r.set(f"image:status:{job_id}", json.dumps({"job_id": job_id, "status": "queued"}), ex=86400)
    r.rpush("image:jobs", json.dumps(job))
    return {"job_id": job_id, "status": "queued"}


@app.get("/jobs/{job_id}")
def get_job(job_id: str):
    status = r.get(f"image:status:{job_id}")
    if status is None:
        raise HTTPException(404)
    return json.loads(status)
