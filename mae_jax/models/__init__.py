"""Network architectures as Flax modules. Losses, masking policies and sharding are elsewhere."""
