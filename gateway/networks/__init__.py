"""Networks: one protocol, one implementation in this process and one that calls Triton."""

from gateway.networks.protocol import EngineStatus, Priority, TokenEngine

__all__ = ["EngineStatus", "Priority", "TokenEngine"]
