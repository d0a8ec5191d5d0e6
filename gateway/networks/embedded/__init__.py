"""Networks in this process: OpenVINO or ONNX Runtime on a thread of its own."""
