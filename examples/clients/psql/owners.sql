SELECT name FROM users WHERE role = 'owner' ORDER BY name;
