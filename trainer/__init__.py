"""The trainer: reads event logs, fits forgetting and models, exports and publishes releases."""
