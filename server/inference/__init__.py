"""Everything that touches Triton: the client, the micro-batcher, the embedded server."""
