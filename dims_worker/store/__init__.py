"""PostgreSQL, the one truth: tables, transactions, and one function a query."""
