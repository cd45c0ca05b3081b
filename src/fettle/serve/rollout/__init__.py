"""Rollouts: a shadow that rides along, an A/B split, a canary that proves itself step by step."""
