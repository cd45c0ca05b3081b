"""Monitor: keep proving a served bundle. Nothing stands here yet."""
