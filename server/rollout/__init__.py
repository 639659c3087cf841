"""Which release serves whom: the plan all gateways share, its guardrails, and who keeps to it."""
