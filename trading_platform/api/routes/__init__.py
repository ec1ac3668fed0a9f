"""The routes, a file a topic. Who may do what is in `identity.py`, what is asked of PostgreSQL in `queries.py`."""
