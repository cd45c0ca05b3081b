"""Serve: a bundle behind the Open Inference Protocol. Nothing stands here yet."""
