"""A look into a memory: which tokens opened its gate, what they read and wrote, and what is in it now."""
