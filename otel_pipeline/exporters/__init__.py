"""Components that hand batches to backends."""
