"""A project that extends the library, for tests: a segmentation task, a distillation method, a text
method, an evaluator, and sources of texts and signals.
"""
