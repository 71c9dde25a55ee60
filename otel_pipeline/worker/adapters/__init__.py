"""One file an adapter: where a queue or framework of its kind begins and ends jobs."""
