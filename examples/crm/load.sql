-- As the backend: sample data of one tenant. Variables: subdomain; companies, contacts and deals, how many of each.

BEGIN;
SELECT set_tenant_by_slug(:'subdomain') \g /dev/null
SELECT setseed(0.5) \g /dev/null

INSERT INTO users (email, password_hash, first_name, last_name, role, created_by)
SELECT format('%s@%s.example', lower(first), :'subdomain'), '$2a$06$' || repeat('x', 53), first, last, role::user_role, 1
FROM (VALUES ('Bruno', 'Berg', 'manager'), ('Chiara', 'Castillo', 'sales_rep'), ('Dmitri', 'Dubois', 'sales_rep'),
             ('Elif', 'Eriksen', 'viewer')) AS people (first, last, role);

INSERT INTO companies (name, industry, website, country, employees, annual_revenue, currency, custom_fields, owner_id, created_by)
SELECT format('%s %s', (ARRAY['Northwind', 'Blue Yonder', 'Fabrikam', 'Contoso', 'Tailspin', 'Litware', 'Adatum', 'Proseware'])[1 + n % 8],
              (ARRAY['Logistics', 'Foods', 'Energy', 'Textiles', 'Software'])[1 + n / 8 % 5] || CASE WHEN n >= 40 THEN ' ' || n / 40 + 1 ELSE '' END),
       (ARRAY['transport', 'food', 'energy', 'textiles', 'software'])[1 + n / 8 % 5],
       format('https://company%s.example', n),
       (ARRAY['CH', 'NO', 'JP', 'BR', 'KE'])[1 + n % 5], 10 + n * 7,
       round((random() * 9000000 + 100000)::numeric, 2), (ARRAY['CHF', 'EUR', 'USD'])[1 + n % 3],
       jsonb_build_object('tier', (ARRAY['gold', 'silver', 'bronze'])[1 + n % 3], 'score', n),
       1 + n % 5, 1
FROM generate_series(0, :companies - 1) AS n;
UPDATE companies SET parent_id = id - 8, updated_by = 2 WHERE id > 8 AND id % 4 = 0;

WITH names AS (
    SELECT string_to_array('Ada Bruno Chiara Dmitri Elif Farid Grace Hiro Ines Jonas Kavya Liam Maja Noor Omar Petra Quentin Rosa Sven Tomoko', ' ') AS first,
           string_to_array('Almeida Berg Castillo Dubois Eriksen Fischer Garcia Haddad Ivanova Jensen Kowalski Larsen Mbeki Nakamura Okafor Patel'
                           || ' Quist Rossi Svensson', ' ') AS last
)
INSERT INTO contacts (company_id, first_name, last_name, email, position, lead_source, tags, custom_fields, owner_id, created_by)
SELECT 1 + n % :companies, first[1 + n % 20], last[1 + (n + n / 20) % 19],
       lower(format('%s.%s.%s@mail.example', first[1 + n % 20], last[1 + (n + n / 20) % 19], n)),
       (ARRAY['Buyer', 'Head of purchasing', 'Engineer', 'Founder'])[1 + n % 4], (ARRAY['web', 'fair', 'referral'])[1 + n % 3],
       CASE WHEN n % 10 = 0 THEN '{vip,newsletter}' ELSE '{newsletter}' END::text[],
       jsonb_build_object('customer number', 1000 + n), 1 + n % 5, 1 + n % 3
FROM names, generate_series(0, :contacts - 1) AS n;

WITH made AS MATERIALIZED (
    SELECT n, random() AS stage, random() AS worth, random() AS age FROM generate_series(0, :deals - 1) AS n
), staged AS (
    SELECT *, CASE WHEN n = 0 OR stage < 0.25 THEN 'prospecting' WHEN stage < 0.45 THEN 'qualification' WHEN stage < 0.6 THEN 'proposal'
                   WHEN stage < 0.7 THEN 'negotiation' WHEN stage < 0.9 THEN 'won' ELSE 'lost' END AS name
    FROM made
)
INSERT INTO deals (title, value, probability, stage, contact_id, company_id, owner_id, expected_close_date, actual_close_date, created_by)
SELECT format('Deal %s', n + 1), round((exp(7 + worth * 4))::numeric, 2), s.probability, s.stage, 1 + n % :contacts, 1 + n % :companies, 1 + n % 5,
       current_date + (age * 90)::integer, CASE WHEN s.is_closed THEN current_date - (age * 90)::integer END, 1 + n % 3
FROM staged JOIN deal_stages AS s ON s.stage = staged.name;

INSERT INTO deal_contacts (deal_id, contact_id, role)
SELECT d.id, c, CASE WHEN c = d.contact_id THEN 'decision_maker' ELSE 'influencer' END
FROM deals AS d, LATERAL (VALUES (d.contact_id), (1 + (d.contact_id + d.id) % :contacts)) AS pair (c)
ON CONFLICT (deal_id, contact_id) DO NOTHING;

INSERT INTO activities (type, subject, deal_id, contact_id, owner_id, due_at, completed_at, created_by)
SELECT (ARRAY['call', 'email', 'meeting', 'note', 'task'])[1 + n % 5]::activity_type, format('Follow-up %s', n), d.id, d.contact_id, d.owner_id,
       now() + (n % 9 - 3) * interval '1 day', CASE WHEN n % 2 = 0 THEN now() - interval '1 day' END, 1
FROM deals AS d, generate_series(1, 2) AS n;

COMMIT;
