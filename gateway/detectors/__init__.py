"""What inspects: the kinds of detectors that a version may hold, behind one protocol."""

from gateway.detectors.base import Detector
from gateway.detectors.kinds import is_taught, load_detector, require_taught

__all__ = ["Detector", "is_taught", "load_detector", "require_taught"]
