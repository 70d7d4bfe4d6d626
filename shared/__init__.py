"""Switchyard without its edges: the pure core, the ports, the adapters and the use cases."""
