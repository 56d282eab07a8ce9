"""manage.py test --settings platform_site.settings_test"""

import os

from platform_site.settings import *  # noqa: F403
from platform_site.settings import DATABASES

TEST_RUNNER = "tenancy.runner.TenantRunner"

# The migrator makes the test database, a copy of a template that has the extension. The application's role tests in it, past the pooler.
app = {key: DATABASES["default"][key] for key in ("USER", "PASSWORD")}
DATABASES["default"] = DATABASES["migrator"] | app | {"TEST": {"MIRROR": "migrator"}}
DATABASES["migrator"]["TEST"] = {"TEMPLATE": os.environ["TEST_TEMPLATE"]}
