"""Detectors: the memory bank and the student-teacher network, behind one protocol."""

from gateway.detectors.base import Detector
from gateway.detectors.kinds import load_detector, require_taught

__all__ = ["Detector", "load_detector", "require_taught"]
