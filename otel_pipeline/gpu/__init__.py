"""What the GPUs of a platform did: samples in, timelines, and the join with spans."""
