"""Sweeps: many experiments of one file, their processes, and their reports."""
