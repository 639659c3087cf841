"""The gateway: keeps interest state, batches requests to Triton, recommends."""
