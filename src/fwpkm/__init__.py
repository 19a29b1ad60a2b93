"""Fast-weight Product Key Memory for PyTorch (Zhao & Jones, arXiv:2601.00671v2)."""

__version__ = "0.1.0.dev0"
