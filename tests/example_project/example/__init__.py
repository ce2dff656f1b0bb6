"""A project beside the library: a segmentation task, a method of texts, and sources of texts and
signals, for tests.
"""
