"""Downstream tasks for pre-trained encoders, one per file. A task is a `types.Method`, too."""
