"""Components that read and edit batches."""
