"""Memories of whole models as people hold them: read a text, ask, save, fork, come back."""
