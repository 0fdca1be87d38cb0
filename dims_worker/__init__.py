"""DIMS: a Data Inventory Management System that reacts. See README.md."""

__version__ = "0.2.0"
