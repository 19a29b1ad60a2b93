"""Training: one loop for one process or many, that can be stopped anywhere and goes on as if it had not been."""
