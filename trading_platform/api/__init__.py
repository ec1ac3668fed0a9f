"""The HTTP API: log-in, what a user may see and change, live streams, health.

One process an instance, any number behind the load balancer; nothing is kept in a process that another could miss.
Read `application.py` first, then `queries.py` (every statement the API sends) and the routes by topic.
"""
