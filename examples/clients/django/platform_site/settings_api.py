"""The API server: level client, so that a request's key chooses its tenant and nothing else can."""

import os

from platform_site.settings import *  # noqa: F403
from platform_site.settings import database

MIDDLEWARE = ["tenancy.middleware.ApiKeyMiddleware"]
DATABASES = {"default": database(os.environ["CLIENT_URL"], pool={"min_size": 1, "max_size": 3})}
