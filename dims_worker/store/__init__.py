"""PostgreSQL, which holds all state: tables, transactions, and one function per query."""
