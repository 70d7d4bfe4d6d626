"""Switchyard on one machine: the same handlers without Azure, a simulator instead of providers, and a command line."""
