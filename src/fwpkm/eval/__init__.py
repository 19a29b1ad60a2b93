"""Measurements of trained models: needles, perplexity by position, gates, use of slots."""
