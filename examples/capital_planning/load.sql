-- As the backend: sample data of one tenant. Variables: tenant; products and days, how many. A sale of every product on each day.

BEGIN;
SELECT set_tenant(:'tenant') \g /dev/null
SELECT setseed(0.5) \g /dev/null

INSERT INTO companies (name, currency) VALUES ('Works', 'EUR');
INSERT INTO companies (name, currency, parent_id) SELECT 'Works Nordic', 'NOK', id FROM companies WHERE name = 'Works';

INSERT INTO products (company_id, sku, name, unit_cost, unit_price, lead_time_days, attributes)
SELECT c.id, format('%s-%s', (ARRAY['PUMP', 'VALVE', 'GEAR', 'SEAL', 'MOTOR'])[1 + n % 5], lpad(n::text, 4, '0')),
       initcap((ARRAY['pump', 'valve', 'gear', 'seal', 'motor'])[1 + n % 5]) || ' ' || n, 10 + n % 40, 15 + n % 40 * 1.6, 7 + n % 21,
       jsonb_build_object('line', (ARRAY['A', 'B', 'C'])[1 + n % 3], 'weight_kg', n % 50)
FROM generate_series(1, :products) AS n JOIN companies AS c ON c.name = CASE WHEN n % 4 = 0 THEN 'Works Nordic' ELSE 'Works' END;

INSERT INTO sales (product_id, sold_on, quantity, unit_price, paid_on)
SELECT p.id, sold_on, 1 + floor(random() * 20), p.unit_price, CASE WHEN random() < 0.9 THEN sold_on + 30 END
FROM products AS p, generate_series(0, :days - 1) AS day, LATERAL (SELECT date '2026-03-31' - day AS sold_on) AS at;

INSERT INTO inventory (product_id, on_hand, reserved)
SELECT id, 50 + id % 100, id % 50 FROM products;

INSERT INTO forecasts (scenario_id, product_id, month, method, quantity, low, high)
SELECT s.id, p.id, (date '2026-04-01' + month * interval '1 month')::date, 'seasonal', 200 + month, 150, 300
FROM scenarios AS s, products AS p, generate_series(0, 5) AS month WHERE s.is_baseline;

INSERT INTO working_capital_metrics (company_id, month, dso, dio, dpo)
SELECT c.id, (date '2024-04-01' + month * interval '1 month')::date, 45 - month / 4.0, 60 - month / 3.0, 30 + month / 6.0
FROM companies AS c, generate_series(0, 23) AS month;

INSERT INTO user_preferences VALUES (gen_random_uuid(), 'theme', '"dark"');
SELECT refresh_monthly_sales() \g /dev/null
COMMIT;
