"""Libraries that run the scans of exported files in ONNX Runtime and OpenVINO."""
