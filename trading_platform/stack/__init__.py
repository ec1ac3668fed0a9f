"""What runs where: embedded PostgreSQL, Valkey and load balancer, and the supervisor of all processes.

Read `servers.py` for the servers, `supervisor.py` for the processes.
"""
