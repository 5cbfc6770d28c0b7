"""The databases: one module each, and PostgreSQL's table in one of its own."""
