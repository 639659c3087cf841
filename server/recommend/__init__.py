"""From a user's state to a slate: candidates, filters, ranking, re-ranking, reasons."""
