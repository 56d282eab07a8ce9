"""The backend: its role has level app. settings_api.py and settings_test.py say what is different there."""

import os
from typing import Any
from urllib.parse import unquote, urlsplit

SECRET_KEY = os.environ.get("SECRET_KEY", "of the example only")
ALLOWED_HOSTS = [".platform.example"]
ROOT_URLCONF = "platform_site.urls"
INSTALLED_APPS = ["agents"]
MIDDLEWARE = ["tenancy.middleware.HostMiddleware"]  # after AuthenticationMiddleware, where there is one
USE_TZ = True
TIME_ZONE = "UTC"


def database(url: str, **options: Any) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "ENGINE": "tenancy.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {"server_side_binding": True, **options},  # values go as parameters, apart from the statement
    }


DATABASES = {
    "default": database(os.environ["APP_URL"], pool={"min_size": 1, "max_size": 3}),
    "migrator": database(os.environ["MIGRATOR_URL"]),  # manage.py migrate --database migrator
}
