"""DIMS: a Data Inventory Management System that reacts. See README.md."""

__version__ = "0.1.0"
