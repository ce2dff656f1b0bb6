"""Measurements of speed: the input pipeline (`data`), the training step (`step`) beside the same
model of another library (`peer`), its collectives on many devices (`scaling`), and its program as
compiled for other devices (`compile`).
"""
