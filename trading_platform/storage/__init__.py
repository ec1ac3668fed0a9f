"""Tables, migrations, pools and the shard map.

Two families of tables. *Control* tables exist once: users, shard map, model registry, signals, experiments, alerts.
*Group* tables hold all that belongs to the users of one group and exist once a group, in a PostgreSQL schema of its
own, on the server that the shard map names. Table names are always schema-qualified; nothing reads a search_path.
Read `databases.py` first.
"""
