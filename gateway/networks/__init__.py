"""Where tokens come from: one protocol, an in-process implementation and one that calls Triton."""

from gateway.networks.protocol import EngineStatus, Priority, TokenEngine

__all__ = ["EngineStatus", "Priority", "TokenEngine"]
