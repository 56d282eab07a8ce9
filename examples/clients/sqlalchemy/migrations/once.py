"""Once for each database, as an admin: the migrator may protect the tables that it makes."""

import os

import psycopg
from sqlalchemy import URL, make_url


def let_protect(admin: URL, migrator: URL) -> None:
    with psycopg.connect(admin.render_as_string(hide_password=False)) as connection:
        connection.execute("SELECT grant_access(%s, 'admin')", [migrator.username])


if __name__ == "__main__":
    let_protect(make_url(os.environ["ADMIN_URL"]), make_url(os.environ["MIGRATOR_URL"]))
