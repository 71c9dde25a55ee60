from fastapi import FastAPI
from pydantic import BaseModel
from tasks import render_poster

app = FastAPI()


class Poster(BaseModel):
    task_id: str
    user_id: str
    tier: str = "free"
    workflow: str
    model: str = "flux-dev"
    seed: int


@app.post("/posters")
def create(poster: Poster):
    payload = poster.model_dump(exclude={"task_id"})
    result = render_poster.delay(poster.task_id, payload)
    return {"celery_id": result.id}
