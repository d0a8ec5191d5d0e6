"""The HTTP service: learns OK images, returns anomaly scores and defect regions. Needs no torch."""

import os
from importlib.metadata import version

__version__ = version("patchcore-gateway")

DECODER_PIXELS = 2**27
"""Largest number of pixels that OpenCV decodes. OpenCV reads this limit when it is imported, which happens later."""
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # decoding errors go to the client, not to the log
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(DECODER_PIXELS))
