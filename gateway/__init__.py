"""The HTTP service: OK images in, anomaly scores and regions out. Torch-free."""

import os
from importlib.metadata import version

__version__ = version("patchcore-gateway")

DECODER_PIXELS = 2**27
"""What OpenCV decodes at most, whatever a header said: it reads its limit when it is first imported, after this."""
os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # what cannot be decoded is told to the client, not the log
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(DECODER_PIXELS))
