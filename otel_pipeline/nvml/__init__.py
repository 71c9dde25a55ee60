"""What the GPUs of this machine did: a sampler over NVIDIA's management library, and the model that others may fill."""
