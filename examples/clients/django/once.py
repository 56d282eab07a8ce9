"""Once for each database, and for the template of the test database, as an admin: the migrator may protect the tables that it makes."""

import os
from urllib.parse import urlsplit

import psycopg

migrator = urlsplit(os.environ["MIGRATOR_URL"]).username
for database in (None, os.environ["TEST_TEMPLATE"]):
    with psycopg.connect(os.environ["ADMIN_URL"], **({"dbname": database} if database else {})) as connection:
        connection.execute("SELECT grant_access(%s, 'admin')", [migrator])
