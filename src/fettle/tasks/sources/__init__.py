"""Data sources, one a file: `fettle.tasks.sources.npz` is what `npz:FILE` reads."""
