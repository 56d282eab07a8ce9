"""Django's backend for PostgreSQL, told that the tables' keys are longer than those of the models."""

from django.db.backends.postgresql import base, features


class DatabaseFeatures(features.DatabaseFeatures):
    # annotate(Count(...)): GROUP BY id alone would need a table whose key is id.
    allows_group_by_selected_pks = False


class DatabaseWrapper(base.DatabaseWrapper):
    features_class = DatabaseFeatures
