"""The gRPC boundary: decode, check, call, encode."""
