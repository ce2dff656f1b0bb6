"""Measurements of speed: the input pipeline (`data`), the training step (`step`) beside the same
model of another library (`peer`), and what many devices cost and could give (`scaling`).
"""
