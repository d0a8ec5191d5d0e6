"""The HTTP service: OK images in, anomaly scores and regions out. Torch-free."""

from importlib.metadata import version

__version__ = version("patchcore-gateway")
