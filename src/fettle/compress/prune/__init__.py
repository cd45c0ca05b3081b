"""Pruning: weights, channels or blocks are removed."""
