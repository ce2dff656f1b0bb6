"""Benchmarks: the input pipeline (`data`), the training step (`step`) compared with the same model
in another library (`peer`), its collectives on many devices (`scaling`), and the step compiled for
accelerators that are not present (`compile`).
"""
