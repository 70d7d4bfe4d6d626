"""The catalog: YAML that says which providers, models and prices there are → the registry's values."""

from shared.catalog.loading import Loaded, load, parse

__all__ = ["Loaded", "load", "parse"]
