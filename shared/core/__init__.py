"""Decisions as pure functions over frozen values: no I/O, clock, environment, chance or logging; standard library only."""
