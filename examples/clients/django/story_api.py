"""The API server's part of the story; the key comes on standard input."""

import sys

import httpx
from django.db import connection

from platform_site.wsgi import application
from story import named_for, promise, raw, refused

transport = httpx.WSGITransport(application)
with httpx.Client(transport=transport, base_url="http://api.platform.example") as client:
    agents = client.get("/agents", headers={"Authorization": f"Bearer {sys.stdin.read()}"}).raise_for_status().json()
    promise("an API key is its tenant: 1 002 agents of Acme", named_for("acme", agents) and len(agents) == 1002)
    answer = client.get("/agents", headers={"Authorization": "Bearer ptk_noise"})
    promise("a wrong key is 401", (answer.status_code, answer.json()) == (401, {"error": "invalid API key"}))
    promise("and so is none", client.get("/agents").status_code == 401)
chosen = refused(lambda: raw("SELECT set_tenant_by_slug('globex')"))
promise("the API server cannot choose a tenant: 42501", chosen == "42501")
connection.close_pool()
