"""The mathematics of interest and forgetting: pure, on the standard library and numpy alone.

Time is an argument everywhere, nothing reads a clock, and no input is ever changed.
"""
