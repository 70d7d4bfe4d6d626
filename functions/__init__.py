"""Azure's edge: triggers that parse a request, call one use case and render its answer. No business rule lives here."""
