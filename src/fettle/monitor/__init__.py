"""Monitor: keep proving a served bundle, from what it answered.

A server tells the prediction log (`log`) of every answer, keeps failed ones as capsules (`capsule`)
and counts for Prometheus (`metrics`). What was logged, or a table from elsewhere (`table`), is read
as rows, columns and `windows`; `latency` says how it went over time, `promise` whether that is what
was proven.
"""
