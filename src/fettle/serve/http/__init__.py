"""REST: the Open Inference Protocol over HTTP, hardened for what strangers send.

`limits` guards connections below the application, `app` maps routes to the service, `server` runs
both on uvicorn. Nothing of a request is trusted before it was counted against a limit.
"""
