"""The models, as plain modules: nothing here trains, reads or writes."""
