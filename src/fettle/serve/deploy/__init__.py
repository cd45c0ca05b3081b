"""Deploy: a bundle written as what another server takes.

The folder is the registry: one module is one way of deploying, its knobs are its options.
"""

from fettle.serve.deploy._deployment import Deployed, Deployment, batch_sizes, deploy

__all__ = ["Deployed", "Deployment", "batch_sizes", "deploy"]
