-- As an admin, after it.
SELECT register_template('crm', 'crm_template', tenant_schema => 'tenant_{slug}');
