"""Store the rankings of one interval in SQLite, MySQL, MariaDB or PostgreSQL.

The command is `store-rankings`; its one function is `movielens_store.store.store_rankings`.
"""
