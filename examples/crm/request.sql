-- As the backend: how each request begins. Variable: subdomain, the first label of the host that was asked for.
BEGIN;
SELECT set_tenant_by_slug(:'subdomain') AS tenant;
