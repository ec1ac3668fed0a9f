"""What runs where: embedded PostgreSQL, Valkey and load balancer, and the supervisor of all processes.

Read `services.py` first: it is the list of all processes. `supervisor.py` keeps them running, `keeper.py` stands above
it for the day it is killed, `up.py` is the order of events from start to end, `servers.py` and `caddy.py` are the
servers from wheels. docs/operations.md says what an operator sees of it.
"""
