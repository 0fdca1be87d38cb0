"""DIMS: an event-driven Data Inventory Management System. See README.md."""

__version__ = "0.2.0"
