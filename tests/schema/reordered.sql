-- Columns in another order than CREATE TABLE gives them, which pg_dump cannot restore either: compare by name.
-- After prelude.sql, as the schema's owner.

CREATE TABLE everything.parent (id integer PRIMARY KEY, a text);
CREATE TABLE everything.child (own integer) INHERITS (everything.parent);
ALTER TABLE everything.parent ADD COLUMN later text NOT NULL DEFAULT 'later', ADD COLUMN number serial;
CREATE TABLE everything.adopted (later text NOT NULL DEFAULT 'own', own text, number integer NOT NULL, a text, id integer NOT NULL);
ALTER TABLE everything.adopted INHERIT everything.parent;
CREATE TABLE everything.heir (gone integer, own text, a text) INHERITS (everything.parent);
ALTER TABLE everything.parent DROP COLUMN a;
ALTER TABLE everything.heir DROP COLUMN gone;
INSERT INTO everything.parent (id) VALUES (1);
INSERT INTO everything.child (id, own, later) VALUES (2, 20, 'two');
INSERT INTO everything.adopted VALUES ('three', 'own', 30, 'a', 3);
INSERT INTO everything.heir (id, own, a) VALUES (4, 'own', 'a');
