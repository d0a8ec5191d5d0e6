"""Networks at a Triton server, over gRPC."""
