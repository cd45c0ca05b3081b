"""Values and seams; nothing here imports torch."""
