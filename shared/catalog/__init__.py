"""The catalog: YAML that says which providers, models and prices there are → the registry's values, kept up to date."""

from shared.catalog.loading import Loaded, load, parse
from shared.catalog.overlay import RegisteredModel
from shared.catalog.source import CatalogSource

__all__ = ["CatalogSource", "Loaded", "RegisteredModel", "load", "parse"]
