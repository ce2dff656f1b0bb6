"""Sharing of trained models: model cards, and uploads to the Hugging Face hub."""
