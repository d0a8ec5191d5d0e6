"""Networks in this process: OpenVINO or ONNX Runtime on one thread."""
