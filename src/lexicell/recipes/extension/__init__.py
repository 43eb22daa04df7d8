"""Shipped recipes of extensions."""
